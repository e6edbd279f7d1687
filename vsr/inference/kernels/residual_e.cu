// The residual-E block of CARN-M in one launch: y = relu(conv1(relu(g2(relu(g1(x))))) + x), where
// g1 and g2 are 3x3 in 4 groups of 16 channels and conv1 is 1x1, all on 64 channels.
//
// Libraries run a 3x3 convolution in groups of 16 as if it were dense, or without Tensor Cores.
// But 16 pixels by 16 channels times the 16x16 weights of one tap is exactly one matrix product.
// Up to the 1x1, a group reads only its own channels, so one warp computes both 3x3 convolutions
// of one group without synchronising with the other warps:
//
// - A block of 4 warps computes 14x10 pixels. Their input, with 2 pixels of border, is in shared
//   memory as [14 rows][18 columns][64 channels] of halves: 32,256 bytes, so that two blocks fit
//   even on Turing. A row of 16 pixels is the M of a product; 14 of them remain after g2's border.
// - g1 reads rows r, r + 1, r + 2 and overwrites input row r, which is not read again, with its
//   row r. g2 does the same, again in place. Every input row is loaded once per column offset and
//   added to the three output rows in progress. All nine taps' weights stay in registers.
// - Then warp w computes output channels 16w..16w+15 of the 1x1 from all groups, adds x (read
//   again, from the L2 cache) and stores 32 bytes of each pixel.
//
// Outside the picture, g1's output is set to zero, as g2's zero padding requires; it is not g1 of
// zeros. Sums are float; results between the convolutions are rounded to half. NaN is propagated.
//
// x, y      NHWC halves [batch, height, width, 64], 16-byte aligned, not overlapping
// weights   vsr.inference.kernels.pack_residual_e: 22,528 halves, 16-byte aligned
// bias      3 * 64 floats, 16-byte aligned
// launch    grid (ceil(width / 14), ceil(height / 10), batch), block 128, no dynamic shared memory
#include "warp.cuh"

namespace residual {

constexpr int THREADS = 128, GROUPS = 4, TAPS = 9, LANES = 32;
constexpr int PIXEL = 8; // chunks of 16 bytes: 8 channels
constexpr int TILE_WIDTH = 14, TILE_HEIGHT = 10;
constexpr int COLUMNS = TILE_WIDTH + 4, ROWS = TILE_HEIGHT + 4;

// Return a chunk's index in the tile; eight neighbouring pixels' chunks are spread over all banks.
__device__ __forceinline__ int place(int row, int column, int chunk) {
    const int pixel = row * COLUMNS + column;
    return pixel * PIXEL + (chunk ^ (pixel & 7));
}

__device__ __forceinline__ float relu(float value) { return value < 0.f ? 0.f : value; }

__device__ __forceinline__ float low(unsigned pair) {
    return from_half(static_cast<unsigned short>(pair & 0xffff));
}

__device__ __forceinline__ float high(unsigned pair) {
    return from_half(static_cast<unsigned short>(pair >> 16));
}

// Load the block's input with its border, zero outside the picture, from pixel (top, left) on.
__device__ __forceinline__ void load_tile(uint4 *tile, const uint4 *x, int top, int left,
                                          int height, int width) {
    for (int i = threadIdx.x; i < ROWS * COLUMNS * PIXEL; i += THREADS) {
        const int chunk = i % PIXEL, column = i / PIXEL % COLUMNS, row = i / PIXEL / COLUMNS;
        const int py = top + row, px = left + column;
        const bool inside = py >= 0 && py < height && px >= 0 && px < width;
        const long long from = inside ? (1LL * py * width + px) * PIXEL + chunk : 0;
        copy16(&tile[place(row, column, chunk)], &x[from], inside);
    }
    copies_done();
}

// Store relu of one row of 16 pixels of one group as halves, zero outside the picture.
__device__ __forceinline__ void store_row(uint4 *tile, const float (&sum)[2][4], int group,
                                          int row, bool row_inside, int left, int width) {
    const int lane = threadIdx.x % LANES;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int column = lane / 4 + 8 * half, px = left + column;
        const bool inside = row_inside && px >= 0 && px < width;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float a = sum[j][2 * half], b = sum[j][2 * half + 1];
            const unsigned both = inside ? pair(relu(a), relu(b)) : 0;
            uint4 *chunk = &tile[place(row, column, 2 * group + j)];
            reinterpret_cast<unsigned *>(chunk)[lane % 4] = both;
        }
    }
}

// Compute a 3x3 convolution with ReLU of the warp's group in place: `rows` rows from `rows` + 2.
__device__ __forceinline__ void convolve(uint4 *tile, const uint4 *weights, const float *bias,
                                         int rows, int top, int left, int height, int width) {
    const int lane = threadIdx.x % LANES, group = threadIdx.x / LANES;
    uint4 w[TAPS];
#pragma unroll
    for (int tap = 0; tap < TAPS; ++tap)
        w[tap] = weights[(group * TAPS + tap) * LANES + lane];
    float b[2][2];
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e)
            b[j][e] = bias[16 * group + 8 * j + 2 * (lane % 4) + e];

    float sum[3][2][4]; // output row o is in sum[o % 3]
#pragma unroll 1
    for (int first = 0; first < rows + 2; first += 3)
#pragma unroll
        for (int k = 0; k < 3; ++k) {
            const int row = first + k;
            if (row >= rows + 2)
                break;
            unsigned a[3][4];
#pragma unroll
            for (int dx = 0; dx < 3; ++dx)
                load_matrix(a[dx], &tile[place(row, lane % 16 + dx, 2 * group + lane / 16)]);
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    sum[k][j][i] = b[j][i % 2];
#pragma unroll
            for (int dy = 0; dy < 3; ++dy) {
                if (row < dy || row - dy >= rows)
                    continue;
#pragma unroll
                for (int dx = 0; dx < 3; ++dx) {
                    const uint4 tap = w[3 * dy + dx];
                    multiply(sum[(k + 3 - dy) % 3][0], a[dx], tap.x, tap.y);
                    multiply(sum[(k + 3 - dy) % 3][1], a[dx], tap.z, tap.w);
                }
            }
            const int done = row - 2, py = top + done;
            if (done >= 0)
                store_row(tile, sum[(k + 1) % 3], group, done, py >= 0 && py < height, left, width);
        }
    __syncwarp(); // the next convolution reads what other lanes wrote
}

// Compute 1x1, skip and ReLU for the warp's 16 output channels of every pixel.
__device__ __forceinline__ void combine(const uint4 *tile, const uint4 *weights, const float *bias,
                                        const uint4 *x, uint4 *y, int top, int left, int height,
                                        int width) {
    const int lane = threadIdx.x % LANES, slice = threadIdx.x / LANES;
    uint4 w[GROUPS];
#pragma unroll
    for (int group = 0; group < GROUPS; ++group)
        w[group] = weights[(slice * GROUPS + group) * LANES + lane];
    // the packed columns give every thread four consecutive channels
    const int channel = 16 * slice + 4 * (lane % 4);
    const float b[4] = {bias[channel], bias[channel + 1], bias[channel + 2], bias[channel + 3]};
#pragma unroll 2
    for (int row = 0; row < TILE_HEIGHT; ++row) {
        if (top + row >= height)
            break;
        bool inside[2];
        long long at[2];
        uint2 skip[2]; // loaded before the products, which hide the latency
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int column = lane / 4 + 8 * half;
            inside[half] = column < TILE_WIDTH && left + column < width;
            at[half] = (1LL * (top + row) * width + left + column) * 16 + channel / 4;
            if (inside[half])
                skip[half] = reinterpret_cast<const uint2 *>(x)[at[half]];
        }
        float sum[2][4];
#pragma unroll
        for (int i = 0; i < 8; ++i)
            sum[i / 4][i % 4] = b[2 * (i / 4) + i % 2];
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            unsigned a[4];
            load_matrix(a, &tile[place(row, lane % 16, 2 * group + lane / 16)]);
            multiply(sum[0], a, w[group].x, w[group].y);
            multiply(sum[1], a, w[group].z, w[group].w);
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (!inside[half])
                continue;
            uint2 four;
            four.x = pair(relu(sum[0][2 * half] + low(skip[half].x)),
                          relu(sum[0][2 * half + 1] + high(skip[half].x)));
            four.y = pair(relu(sum[1][2 * half] + low(skip[half].y)),
                          relu(sum[1][2 * half + 1] + high(skip[half].y)));
            reinterpret_cast<uint2 *>(y)[at[half]] = four;
        }
    }
}

} // namespace residual

extern "C" __global__ void __launch_bounds__(residual::THREADS, 4)
    residual_e(const uint4 *__restrict__ x, const uint4 *__restrict__ weights,
               const float *__restrict__ bias, int height, int width, uint4 *__restrict__ y) {
    using namespace residual;
    constexpr int GROUPED = GROUPS * TAPS * LANES; // number of uint4 in the weights of one 3x3
    __shared__ uint4 tile[ROWS * COLUMNS * PIXEL];
    const int left = blockIdx.x * TILE_WIDTH, top = blockIdx.y * TILE_HEIGHT;
    const long long picture = 1LL * blockIdx.z * height * width * PIXEL;

    load_tile(tile, x + picture, top - 2, left - 2, height, width);
    __syncthreads();
#pragma unroll 1
    for (int layer = 0; layer < 2; ++layer) {
        const int border = 1 - layer; // g1 also computes the one pixel around that g2 reads
        convolve(tile, weights + layer * GROUPED, bias + layer * 64, TILE_HEIGHT + 2 * border,
                 top - border, left - border, height, width);
    }
    __syncthreads();
    combine(tile, weights + 2 * GROUPED, bias + 128, x + picture, y + picture, top, left, height,
            width);
}
