// Runs CUDA kernels as plain C++, so that their arithmetic can be tested without a GPU.
//
// Every thread of a block is a coroutine on a stack of its own; it is left only where it waits for
// the others: at __syncthreads, at __syncwarp, and at the warp's matrix instructions, which the
// last lane to arrive carries out for all, by the fragment layouts of the PTX manual. Blocks run
// one after the other. Shared memory is full of NaNs before each, so that what nobody wrote shows;
// each warp runs as far as it can before the next, and all orders can be turned round, so that a
// missing __syncthreads shows (a missing __syncwarp cannot: matrix instructions wait as well).
// It stands in for vsr/inference/kernels/warp.cuh, whose functions it has in plain C++: only that file's PTX
// goes untested.
#pragma once
#define VSR_WARP_CUH

#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("on_host_shared")))

struct dim3 {
    unsigned x, y, z;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static dim3 threadIdx, blockIdx;

extern "C" char __start_on_host_shared[], __stop_on_host_shared[]; // by the linker

namespace on_host {

constexpr int WARP = 32, STACK = 128 * 1024;

struct Gate { // where `size` threads wait for each other
    int size, arrived = 0, opened = 0;
};

struct Lane { // what a lane hands to a matrix instruction
    float *c;
    unsigned *a;
    const uint4 *row;
    unsigned b[2];
};

struct Thread {
    ucontext_t start;
    jmp_buf state;
    std::vector<char> stack = std::vector<char>(STACK);
    bool begun = false, done = false;
};

static std::vector<Thread> threads;
static std::vector<Gate> warps;
static std::vector<Lane> lanes;
static Gate block;
static jmp_buf scheduler;
static std::function<void()> body;
static bool moved; // a gate opened or a thread ended

inline void pass(Gate &gate, const std::function<void()> &deed = {}) {
    if (++gate.arrived == gate.size) {
        if (deed)
            deed();
        gate.arrived = 0;
        ++gate.opened;
        moved = true;
        return;
    }
    const int before = gate.opened;
    while (gate.opened == before) {
        const unsigned self = threadIdx.x;
        if (!_setjmp(threads[self].state))
            _longjmp(scheduler, 1);
    }
}

inline void begin() {
    body();
    threads[threadIdx.x].done = moved = true;
    _longjmp(scheduler, 1);
}

inline void resume(unsigned index) {
    Thread &thread = threads[index];
    threadIdx.x = index;
    if (_setjmp(scheduler))
        return;
    if (thread.begun)
        _longjmp(thread.state, 1);
    thread.begun = true;
    getcontext(&thread.start);
    thread.start.uc_stack.ss_sp = thread.stack.data();
    thread.start.uc_stack.ss_size = STACK;
    thread.start.uc_link = nullptr;
    makecontext(&thread.start, begin, 0);
    setcontext(&thread.start);
}

inline bool run_block(bool backwards) {
    const int count = static_cast<int>(threads.size());
    memset(__start_on_host_shared, 0xff, __stop_on_host_shared - __start_on_host_shared);
    for (Thread &thread : threads)
        thread.begun = thread.done = false;
    block = {count};
    warps.assign(count / WARP, Gate{WARP});
    for (int left = count; left > 0;) {
        bool any = false;
        for (int i = 0; i < count / WARP; ++i) {
            const int first = WARP * (backwards ? count / WARP - 1 - i : i);
            do {
                moved = false;
                for (int lane = 0; lane < WARP; ++lane) {
                    const int index = first + (backwards ? WARP - 1 - lane : lane);
                    if (threads[index].done)
                        continue;
                    resume(index);
                    left -= threads[index].done;
                }
                any |= moved;
            } while (moved);
        }
        if (!any)
            return false;
    }
    return true;
}

// Runs a kernel over a grid of blocks of `count` threads; false if its threads wait for ever.
template <class... Parameters, class... Arguments>
bool launch(void (*kernel)(Parameters...), dim3 grid, int count, bool backwards,
            Arguments... arguments) {
    threads.resize(count);
    lanes.resize(count);
    body = [=] { kernel(arguments...); };
    const unsigned row = grid.x, layer = grid.x * grid.y, blocks = layer * grid.z;
    for (unsigned i = 0; i < blocks; ++i) {
        const unsigned index = backwards ? blocks - 1 - i : i;
        blockIdx = {index % row, index % layer / row, index / layer};
        if (!run_block(backwards))
            return false;
    }
    return true;
}

inline Lane *own_warp() { return &lanes[threadIdx.x / WARP * WARP]; }

} // namespace on_host

inline void __syncthreads() { on_host::pass(on_host::block); }

inline void __syncwarp() { on_host::pass(on_host::warps[threadIdx.x / on_host::WARP]); }

inline unsigned short to_half(float value) {
    const _Float16 half = static_cast<_Float16>(value);
    unsigned short bits;
    memcpy(&bits, &half, 2);
    return bits;
}

inline unsigned pair(float low, float high) {
    return to_half(low) | static_cast<unsigned>(to_half(high)) << 16;
}

inline float from_half(unsigned short bits) {
    _Float16 half;
    memcpy(&half, &bits, 2);
    return static_cast<float>(half);
}

inline float half_of(unsigned pair, int which) {
    return from_half(static_cast<unsigned short>(pair >> 16 * which));
}

inline void copy16(uint4 *shared, const uint4 *global, bool valid) {
    *shared = valid ? *global : uint4{0, 0, 0, 0};
}

inline void copies_done() {}

// ldmatrix .x4: matrix m gets its 8 rows from lanes 8m..8m+7; lane L gets halves 2(L % 4), + 1 of
// row L / 4 of each.
inline void load_matrix(unsigned (&a)[4], const uint4 *shared) {
    on_host::Lane *const warp = on_host::own_warp();
    on_host::Lane &self = on_host::lanes[threadIdx.x];
    self.a = a;
    self.row = shared;
    on_host::pass(on_host::warps[threadIdx.x / on_host::WARP], [warp] {
        for (int lane = 0; lane < 32; ++lane)
            for (int matrix = 0; matrix < 4; ++matrix)
                memcpy(&warp[lane].a[matrix],
                       reinterpret_cast<const char *>(warp[8 * matrix + lane / 4].row) +
                           4 * (lane % 4),
                       4);
    });
}

// mma.m16n8k16, sums in float.
inline void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    on_host::Lane *const warp = on_host::own_warp();
    on_host::Lane &self = on_host::lanes[threadIdx.x];
    self.c = c;
    self.a = const_cast<unsigned *>(a);
    self.b[0] = b0;
    self.b[1] = b1;
    on_host::pass(on_host::warps[threadIdx.x / on_host::WARP], [warp] {
        float left[16][16], right[16][8];
        for (int lane = 0; lane < 32; ++lane)
            for (int e = 0; e < 2; ++e) {
                const int q = lane / 4, t = 2 * (lane % 4) + e;
                for (int i = 0; i < 4; ++i)
                    left[q + 8 * (i % 2)][t + 8 * (i / 2)] = half_of(warp[lane].a[i], e);
                for (int i = 0; i < 2; ++i)
                    right[t + 8 * i][q] = half_of(warp[lane].b[i], e);
            }
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 4; ++i) {
                const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
                float sum = warp[lane].c[i];
                for (int k = 0; k < 16; ++k)
                    sum += left[row][k] * right[k][column];
                warp[lane].c[i] = sum;
            }
    });
}
