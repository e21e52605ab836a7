"""The names under which units notify and watchers wait. A topic says that something changed, never what."""

MODELS = "models"  # any model's state, demand, replicas or assignments

KEYS = "keys"  # any account's or key's settings

LEDGER = "ledger"  # rows that are not sealed yet


def model_topic(name: str) -> str:
    """One model: its state, replicas and waiting sessions."""
    return f"model/{name}"


def key_sessions_topic(key_id: str) -> str:
    """The sessions of a key: one was started."""
    return f"key-sessions/{key_id}"


def session_topic(session_id: str) -> str:
    """One session."""
    return f"session/{session_id}"
