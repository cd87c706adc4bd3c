"""Small CuTe-DSL kernels, one per corner of the machine; import them while a simulated device is active."""
