"""The machine under the model: CPUs, their limits and their heat."""
