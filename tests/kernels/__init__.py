"""Small CuTe-DSL kernels, each for one corner of the machine; import them while a simulated device is active."""
