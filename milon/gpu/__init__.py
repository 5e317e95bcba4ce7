"""The only tensors and the only floats: programs, exact numerics, training, replay, aggregation."""
