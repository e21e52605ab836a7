"""From the messages of OpenAI's chats to ours: a role and a text each."""

from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.gateway.json_body import Fields, as_text

_DEVELOPER = "developer"  # OpenAI's newer word for the system's role; models' templates know the older one


def messages_of(value: object) -> tuple[tuple[str, str], ...]:
    """Roles and contents. Raises FieldInvalidError with the path of what is wrong; roles are the model's to check."""
    if not isinstance(value, list) or not value:
        raise FieldInvalidError("messages must be a list of at least one message.", field="messages")
    return tuple(_message(each, f"messages[{index}]") for index, each in enumerate(value))


def _message(value: object, path: str) -> tuple[str, str]:
    fields = Fields(value, path)
    role = fields.text("role")
    if not role:
        fields.refuse("role", "must be a string")
    content = fields.take("content")
    for name in ("name", "refusal", "audio", "function_call", "tool_call_id"):
        fields.unserved(name)
    for name in ("tool_calls", "annotations"):
        fields.unserved(name, [])
    fields.refuse_rest()
    return "system" if role == _DEVELOPER else role, _content(content, f"{path}.content")


def _content(value: object, path: str) -> str:
    """A string, or a list of texts, which are put one after the other."""
    if not isinstance(value, list):
        return as_text(value, path)
    return "".join(_part(part, f"{path}[{index}]") for index, part in enumerate(value))


def _part(value: object, path: str) -> str:
    fields = Fields(value, path)
    if fields.take("type") != "text":
        fields.refuse("type", 'must be "text"; images, sounds and files are not served')
    text = as_text(fields.take("text"), f"{path}.text")
    fields.unserved("prompt_cache_breakpoint")
    fields.refuse_rest()
    return text
