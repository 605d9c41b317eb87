"""Teachers that come from outside: Hugging Face models without gradients. Neither torchtitan nor a store."""
