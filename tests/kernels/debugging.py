"""What users put into a kernel to see what it does: cute.printf and cute.testing.assert_."""

import cutlass
import cutlass.cute as cute
import cutlass.cute.testing


@cute.kernel
def report_kernel(numbers: cute.Tensor, scale: cutlass.Float32, limit: cutlass.Int32):
    thread, _, _ = cute.arch.thread_idx()
    block, _, _ = cute.arch.block_idx()
    if thread < 2:
        cute.printf("CTA %d thread %d: %f\n", block, thread, numbers[thread] * scale)
    if thread == 0:
        cute.printf("static {} {} {}", 5, 2.5, numbers.layout)
        wide = cutlass.Int64(limit) * 10000000000
        cute.printf("{} {} {}", wide, cutlass.BFloat16(scale), cutlass.Float16(scale))
        fragment = cute.make_rmem_tensor(4, cutlass.Float32)
        for i in cutlass.range_constexpr(4):
            fragment[i] = numbers[i]
        cute.print_tensor(fragment)
    cute.testing.assert_(thread < limit, "thread below limit")


@cute.jit
def report(numbers: cute.Tensor, scale: cutlass.Float32, limit: cutlass.Int32, blocks: cutlass.Int32):
    report_kernel(numbers, scale, limit).launch(grid=(blocks, 1, 1), block=(32, 1, 1))


@cute.kernel
def far_sine_kernel(numbers: cute.Tensor):
    thread, _, _ = cute.arch.thread_idx()
    numbers[thread] = cute.math.sin(numbers[thread])


@cute.jit
def far_sine(numbers: cute.Tensor):
    far_sine_kernel(numbers).launch(grid=(1, 1, 1), block=(32, 1, 1))
