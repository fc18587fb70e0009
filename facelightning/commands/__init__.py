"""What a user types, beyond Lightning's own four commands: one module each."""
