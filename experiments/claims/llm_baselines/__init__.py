"""What is measured for the claims of the LLM baselines, see `llm_baselines`."""
