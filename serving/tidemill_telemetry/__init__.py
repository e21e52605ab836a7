"""What the processes tell of their work: log lines, the ids that join them, spans. Never prompts, answers or keys."""
