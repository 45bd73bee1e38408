"""Arguments that commands share: options, method parameters, prompts, steerers."""
