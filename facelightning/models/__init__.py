"""Networks: tensors in, tensors out; plain ``nn.Module``, one idea of a paper a file."""
