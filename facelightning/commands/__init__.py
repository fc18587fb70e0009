"""The commands beyond Lightning's own four: one module each."""
