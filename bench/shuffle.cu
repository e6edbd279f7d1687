// 3x3 convolution, bias, optional ReLU and pixel shuffle in one launch: the last layers of the
// networks. Input channels are read once; the output is written as the final picture.
//
// A block of 4 warps computes 16x8 low-resolution pixels of 16 convolution outputs (the 12 of RGB x2
// need one such part; more outputs need more blocks in z). Input channels pass through shared memory
// 64 at a time, as [10 rows][18 columns][64] of halves: 23,040 bytes. Each warp computes two rows; an
// A fragment is used for every tap of its column that needs it.
//
// Output o of the convolution is channel c, row ry and column rx of the factor x factor pixels of
// its place, o = (c * factor + ry) * factor + rx: the order of torch.nn.PixelShuffle.
//
// x         NHWC halves [batch, height, width, channels], channels a multiple of 16; 16-byte aligned
// weights   bench.shuffle.pack_shuffle: halves, 16-byte aligned
// bias      floats, padded to a multiple of 16 outputs
// relu      1: apply ReLU before the shuffle; 0: do not
// y         NCHW halves [batch, outputs / factor^2, height * factor, width * factor], 4-byte aligned
// launch    grid (ceil(width / 16), ceil(height / 8), batch * ceil(outputs / 16)), block 128
#include "warp.cuh"

namespace shuffling {

constexpr int THREADS = 128, TAPS = 9, LANES = 32, ROWS_PER_WARP = 2;
constexpr int SLAB = 8; // chunks of 16 bytes: 64 channels
constexpr int TILE_WIDTH = 16, TILE_HEIGHT = 8;
constexpr int COLUMNS = TILE_WIDTH + 2, ROWS = TILE_HEIGHT + 2;

// Index of a chunk in shared memory: eight neighbouring pixels' chunks are spread over all banks.
__device__ __forceinline__ int place(int row, int column, int chunk) {
    const int pixel = row * COLUMNS + column;
    return pixel * SLAB + (chunk ^ (pixel & 7));
}

// Load `count` chunks of every pixel of the block and its border, zeros outside the picture.
__device__ __forceinline__ void load_slab(uint4 *tile, const uint4 *x, int top, int left,
                                          int height, int width, int chunks, int first, int count) {
    for (int i = threadIdx.x; i < ROWS * COLUMNS * SLAB; i += THREADS) {
        const int chunk = i % SLAB, column = i / SLAB % COLUMNS, row = i / SLAB / COLUMNS;
        if (chunk >= count)
            continue;
        const int py = top + row, px = left + column;
        const bool inside = py >= 0 && py < height && px >= 0 && px < width;
        const long long from = inside ? (1LL * py * width + px) * chunks + first + chunk : 0;
        copy16(&tile[place(row, column, chunk)], &x[from], inside);
    }
    copies_done();
}

// Add the contribution of 16 input channels to the warp's two rows.
__device__ __forceinline__ void accumulate(float (&sum)[ROWS_PER_WARP][2][4], const uint4 *tile,
                                           const uint4 *weights, int chunk) {
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
#pragma unroll
    for (int dx = 0; dx < 3; ++dx) {
        uint4 w[3];
#pragma unroll
        for (int dy = 0; dy < 3; ++dy)
            w[dy] = weights[(3 * dy + dx) * LANES + lane];
#pragma unroll
        for (int row = 0; row < ROWS_PER_WARP + 2; ++row) {
            unsigned a[4];
            const int at = ROWS_PER_WARP * warp + row;
            load_matrix(a, &tile[place(at, lane % 16 + dx, chunk + lane / 16)]);
#pragma unroll
            for (int dy = 0; dy < 3; ++dy) {
                if (row < dy || row - dy >= ROWS_PER_WARP)
                    continue;
                multiply(sum[row - dy][0], a, w[dy].x, w[dy].y);
                multiply(sum[row - dy][1], a, w[dy].z, w[dy].w);
            }
        }
    }
}

__device__ __forceinline__ float activated(float value, int relu) {
    return relu && value < 0.f ? 0.f : value;
}

// Offset of output `output` of low-resolution pixel (0, 0) in the enlarged picture.
__device__ __forceinline__ long long origin(int output, int factor, int height, int width) {
    const int rx = output % factor, ry = output / factor % factor;
    const long long channel = output / factor / factor;
    return (channel * height * factor + ry) * width * factor + rx;
}

} // namespace shuffling

extern "C" __global__ void __launch_bounds__(shuffling::THREADS, 4)
    shuffle(const uint4 *__restrict__ x, const uint4 *__restrict__ weights,
            const float *__restrict__ bias, int height, int width, int channels, int outputs,
            int factor, int relu, unsigned short *__restrict__ y) {
    using namespace shuffling;
    __shared__ uint4 tile[ROWS * COLUMNS * SLAB];
    const int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    const int parts = (outputs + 15) / 16, part = blockIdx.z % parts, n = blockIdx.z / parts;
    const int left = blockIdx.x * TILE_WIDTH, top = blockIdx.y * TILE_HEIGHT;
    const int chunks = channels / 8;

    float sum[ROWS_PER_WARP][2][4];
#pragma unroll
    for (int i = 0; i < ROWS_PER_WARP * 8; ++i) {
        const int j = i / 4 % 2, e = i % 2;
        sum[i / 8][j][i % 4] = bias[16 * part + 8 * j + 2 * (lane % 4) + e];
    }
    for (int first = 0; first < chunks; first += SLAB) {
        const int count = chunks - first < SLAB ? chunks - first : SLAB;
        if (first > 0)
            __syncthreads(); // the previous slab is still being read
        load_slab(tile, x + 1LL * n * height * width * chunks, top - 1, left - 1, height, width,
                  chunks, first, count);
        __syncthreads();
        for (int chunk = 0; chunk < count; chunk += 2) {
            const int block = part * (chunks / 2) + (first + chunk) / 2;
            accumulate(sum, tile, weights + block * TAPS * LANES, chunk);
        }
    }
    y += 1LL * n * outputs * height * width; // factor^2 more pixels, factor^2 fewer channels
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const int output = 16 * part + 8 * j + 2 * (lane % 4); // and the next one
        const long long first = origin(output, factor, height, width);
        const long long second = origin(output + 1, factor, height, width);
#pragma unroll
        for (int i = 0; i < ROWS_PER_WARP * 2; ++i) {
            const int line = i / 2, half = i % 2;
            const int row = top + ROWS_PER_WARP * warp + line, column = left + lane / 4 + 8 * half;
            if (row >= height || column >= width || output >= outputs)
                continue;
            const float a = activated(sum[line][j][2 * half], relu);
            const float b = activated(sum[line][j][2 * half + 1], relu);
            const long long at = (1LL * row * factor * width + column) * factor;
            if (factor % 2 == 0) { // adjacent pixels; outputs, a multiple of factor^2, is even
                *reinterpret_cast<unsigned *>(&y[first + at]) = pair(a, b);
                continue;
            }
            y[first + at] = to_half(a);
            if (output + 1 < outputs)
                y[second + at] = to_half(b);
        }
    }
}
