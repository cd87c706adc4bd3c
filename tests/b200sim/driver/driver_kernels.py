"""Small CuTe-DSL kernels for the driver's tests. Imported while a simulated device is active."""

import cutlass
import cutlass.cute as cute


@cute.kernel
def store_thread_plus(pointer: cute.Pointer, number: cutlass.Int32):
    thread, _, _ = cute.arch.thread_idx()
    cute.make_tensor(pointer, cute.make_layout(128))[thread] = thread + number


@cute.kernel
def store_thread_times(pointer: cute.Pointer, number: cutlass.Int32):
    thread, _, _ = cute.arch.thread_idx()
    cute.make_tensor(pointer, cute.make_layout(128))[thread] = thread * number


@cute.jit
def launch_cluster(pointer: cute.Pointer, number: cutlass.Int32):
    store_thread_plus(pointer, number).launch(
        grid=(number, 6, 4), block=(128, 1, 1), cluster=(2, 1, 2), smem=4096, use_pdl=True
    )


@cute.jit
def launch_two(pointer: cute.Pointer, number: cutlass.Int32):
    store_thread_plus(pointer, number).launch(grid=(2, 1, 1), block=(128, 1, 1))
    store_thread_times(pointer, number).launch(grid=(3, 1, 1), block=(128, 1, 1), cooperative=True)


@cute.kernel
def decrease_registers():
    cute.arch.setmaxregister_decrease(40)


@cute.jit
def launch_decrease():
    decrease_registers().launch(grid=(1, 1, 1), block=(128, 1, 1), min_blocks_per_mp=1)


@cute.kernel
def add(left: cute.Tensor, right: cute.Tensor, total: cute.Tensor):
    thread, _, _ = cute.arch.thread_idx()
    total[thread] = left[thread] + right[thread]


@cute.jit
def launch_add(left: cute.Tensor, right: cute.Tensor, total: cute.Tensor):
    add(left, right, total).launch(grid=(1, 1, 1), block=(32, 1, 1))
