// The fused kernels as a library for host_kernels.py: see cuda_on_host.h.
#include "cuda_on_host.h"

#include "../vsr/inference/kernels/residual_e.cu"
#include "../bench/shuffle.cu"

extern "C" bool run_residual_e(unsigned gx, unsigned gy, unsigned gz, int threads, bool backwards,
                               const uint4 *x, const uint4 *weights, const float *bias, int height,
                               int width, uint4 *y) {
    return on_host::launch(residual_e, dim3{gx, gy, gz}, threads, backwards, x, weights, bias,
                           height, width, y);
}

extern "C" bool run_shuffle(unsigned gx, unsigned gy, unsigned gz, int threads, bool backwards,
                            const uint4 *x, const uint4 *weights, const float *bias, int height,
                            int width, int channels, int outputs, int factor, int relu,
                            unsigned short *y) {
    return on_host::launch(shuffle, dim3{gx, gy, gz}, threads, backwards, x, weights, bias, height,
                           width, channels, outputs, factor, relu, y);
}
