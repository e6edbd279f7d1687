// Warp-level operations of the kernels as inline PTX, so that NVRTC needs no CUDA header at all.
//
// tests/cuda_on_host.h has the same functions in plain C++, to run the kernels without a GPU.
// A "pair" is two halves in 32 bits, the first one in the low 16. Fragments are those of
// `mma.m16n8k16` (PTX ISA, "Matrix fragments for mma.m16n8k16"): with q = lane / 4, t = lane % 4
//   A  16x16  a[0], a[1]: rows q, q + 8 of columns 2t, 2t + 1;  a[2], a[3]: the same, columns + 8
//   B  16x8   b0: rows 2t, 2t + 1 of column q;  b1: the same, rows + 8
//   C  16x8   c[0], c[1]: row q, columns 2t, 2t + 1;  c[2], c[3]: row q + 8
#ifndef VSR_WARP_CUH
#define VSR_WARP_CUH

#if __CUDA_ARCH__ < 750
#error "the fused kernels need a GPU of compute capability 7.5 or newer"
#endif

__device__ __forceinline__ unsigned shared_address(const void *shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// Copy 16 bytes from global to shared memory, zeros if not valid; complete after copies_done().
__device__ __forceinline__ void copy16(uint4 *shared, const uint4 *global, bool valid) {
#if __CUDA_ARCH__ >= 800
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(bytes)
                 : "memory");
#else
    *shared = valid ? *global : make_uint4(0, 0, 0, 0);
#endif
}

// Wait for the calling thread's copies; other threads' are complete after __syncthreads().
__device__ __forceinline__ void copies_done() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Load a fragment A: lane L points to the 8 halves of row L % 16 from column 8 * (L / 16) on.
// Called by the whole warp.
__device__ __forceinline__ void load_matrix(unsigned (&a)[4], const uint4 *shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(shared_address(shared))
                 : "memory");
}

// Compute C += A * B, accumulated in float. Called by the whole warp.
__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                         unsigned b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else // Turing has only m16n8k8
    const unsigned b[2] = {b0, b1};
#pragma unroll
    for (int k = 0; k < 2; ++k)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
#endif
}

// Round to the nearest half, ties to even.
__device__ __forceinline__ unsigned short to_half(float value) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
    return half;
}

__device__ __forceinline__ unsigned pair(float low, float high) {
#if __CUDA_ARCH__ >= 800
    unsigned both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return to_half(low) | static_cast<unsigned>(to_half(high)) << 16;
#endif
}

__device__ __forceinline__ float from_half(unsigned short half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

#endif
