"""What the control plane and a replica both know of a model: its package, its tokenizer and its chat templates."""
