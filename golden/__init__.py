"""The truth in PyTorch: networks, data, training, quantisation and the integer model."""
