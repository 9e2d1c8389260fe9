"""One compute unit: row and weight memories, MAC array, convolution and fill engines."""
