// Attention pooling on Hopper: gated, one head, features and products in bf16, forward. Page: src/ops/attention_mil/mod.rs.
// A persistent block of three warpgroups for a segment of 512 rows of one bag at a time: two multiply 64 rows by 256 columns
// (128 of V, 128 of U) each; of the other, one warp copies ahead and three pool the rows that are scored meanwhile.
//
// Floor for 10^6 rows, L 1024, D 256 on an H200: 1.05 TFLOP at 790 TFLOP/s, 1.33 ms; x is read from memory once (2.05 GB,
// 0.48 ms), for the second 256 columns and for pooling out of the L2, where the 132 tiles of 256 KiB in work are 34 MB.
// Prediction, not measured: each stage is 128 x 256 x 64, 1024 cycles of the tensor cores for 48 KiB copied (48 bytes a
// cycle, of them 32 from the L2 for V and U) and 80 KiB read by wgmma (80 of 128 bytes a cycle). Gates take 2048 cycles of
// the special functions for every 16384 of products; a warpgroup may be up to four stages ahead of the other, 2048 cycles
// of its own products, so most of its gates run beside the products of the other. 1.6 to 1.9 ms.
// Pooling has 27 us for a tile: at L 1024 it takes two rounds of 16 times eight loads on their way, about 25 us.
// Registers: 2 x 208 (128 of them sums) + 96 a thread; shared memory: 192 KiB of stages and 4 L bytes.
#include "device.cuh"
#include "block.cuh"
#include "hopper.cuh"
#include "mma.cuh"

constexpr int ROWS = 128, COLUMNS = 256, STEP = 64, STAGES = 4;   // of a tile; columns of a stage
constexpr int TILE_A = ROWS * STEP, TILE_B = COLUMNS * STEP;      // numbers
constexpr unsigned GROUP = 128;                                   // threads of a warpgroup

// inner [chunk of 128 units][step][256][64] = V and U interleaved row by row, rounded and swizzled as the products want
// them, zeros behind D: a thread for eight numbers.
extern "C" __global__ void __launch_bounds__(256)
attention_mil_sm90_pack(const float* __restrict__ v, const float* __restrict__ u, __nv_bfloat16* __restrict__ inner, unsigned l, unsigned d,
                        unsigned chunks) {
    const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(chunks) * COLUMNS * l / 8) return;
    const unsigned part = unsigned(i % 8), row = unsigned(i / 8 % COLUMNS), step = unsigned(i / 8 / COLUMNS % (l / STEP));
    const unsigned chunk = unsigned(i / 8 / COLUMNS / (l / STEP)), unit = chunk * (COLUMNS / 2) + row / 2;
    const float* from = (row % 2 ? u : v) + size_t(unit) * l + step * STEP + part * 8;
    Vec<__nv_bfloat16> eight;
#pragma unroll
    for (int j = 0; j < 8; ++j) eight.set_rounded(j, unit < d ? from[j] : 0.f);
    eight.store(inner + (size_t(chunk) * (l / STEP) + step) * TILE_B + swizzled_chunk(row, part));
}

// Which stage is next, and the parity of its barriers.
struct Stage {
    unsigned at = 0, parity = 0;
    __device__ __forceinline__ void next() {
        if (++at == STAGES) at = 0, parity ^= 1;
    }
};

struct Barriers {
    Mbarrier full[STAGES], empty[STAGES];  // of a stage
    Mbarrier scored[2], taken[2];          // of the scores of a tile
};

extern "C" __global__ void __launch_bounds__(3 * GROUP, 1)
attention_mil_sm90_forward(const __nv_bfloat16* __restrict__ x, const __nv_bfloat16* __restrict__ inner, const float* __restrict__ v_bias,
                           const float* __restrict__ u_bias, const float* __restrict__ w, const float* __restrict__ w_bias,
                           const unsigned* __restrict__ start, float* __restrict__ scores, __nv_bfloat16* __restrict__ gates,
                           float* __restrict__ segment_max, float* __restrict__ segment_sum, float* __restrict__ pooled, unsigned n,
                           unsigned segments, unsigned l, unsigned d, unsigned chunks, unsigned gate_stride) {
    DYNAMIC_SHARED(__nv_bfloat16, memory);  // [STAGES][TILE_A + TILE_B], then l floats
    __shared__ Barriers barriers;
    __shared__ float tile_score[2][ROWS], weight[3][ROWS];
    const unsigned group = threadIdx.x / GROUP, warp = threadIdx.x % GROUP / 32, lane = threadIdx.x % 32;
    const unsigned steps = l / STEP;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; ++s) mbarrier_init(&barriers.full[s], 32 + 1), mbarrier_init(&barriers.empty[s], 8);
        for (int b = 0; b < 2; ++b) mbarrier_init(&barriers.scored[b], 8), mbarrier_init(&barriers.taken[b], 3);
        mbarrier_init_fence();
    }
    __syncthreads();  // the barriers are ready in everybody's eyes

    if (group < 2) {  // multiplies 64 rows, and makes scores of them
        take_registers<208>();
        Stage stage;
        unsigned tile = 0;
        const unsigned row = group * 64 + warp * 16 + lane / 4;
        const float bias = w_bias ? w_bias[0] : 0.f;
        for (unsigned segment = blockIdx.x; segment < segments; segment += gridDim.x) {
            const unsigned end = start[segment + 1];
            for (unsigned first = start[segment]; first < end; first += ROWS, ++tile) {
                float sum[2] = {0.f, 0.f};
                for (unsigned chunk = 0; chunk < chunks; ++chunk) {
                    float c[COLUMNS / 2];
                    unsigned before = 0;
                    for (unsigned step = 0; step < steps; ++step) {
                        mbarrier_wait(&barriers.full[stage.at], stage.parity);
                        const __nv_bfloat16* at = memory + size_t(stage.at) * (TILE_A + TILE_B);
                        const SwizzledTile a(at + group * 64 * STEP), b(at + TILE_A);
                        wgmma_fence();
#pragma unroll
                        for (int k = 0; k < STEP / 16; ++k) wgmma(c, a.k16(k), b.k16(k), step || k);
                        wgmma_commit();
                        if (step) {
                            wgmma_wait<1>();
                            __syncwarp();  // all lanes have read the stage before, so one may say so
                            if (lane == 0) mbarrier_arrive(&barriers.empty[before]);
                        }
                        before = stage.at;
                        stage.next();
                    }
                    wgmma_wait<0>();
                    __syncwarp();  // the same for the last
                    if (lane == 0) mbarrier_arrive(&barriers.empty[before]);
#pragma unroll
                    for (int j = 0; j < COLUMNS / 8; ++j) {
                        const unsigned unit = chunk * (COLUMNS / 2) + j * 4 + lane % 4;
                        const bool inside = unit < d;
                        const float of = inside ? w[unit] : 0.f, tanh_bias = inside && v_bias ? v_bias[unit] : 0.f,
                                    sigmoid_bias = inside && u_bias ? u_bias[unit] : 0.f;
#pragma unroll
                        for (int half = 0; half < 2; ++half) {
                            const float t = tanh_fast(c[4 * j + 2 * half] + tanh_bias), s = sigmoid_fast(c[4 * j + 2 * half + 1] + sigmoid_bias);
                            sum[half] = fmaf(of, t * s, sum[half]);
                            if (gates && first + row + 8 * half < end && 2 * unit < gate_stride)
                                *reinterpret_cast<__nv_bfloat162*>(gates + size_t(first + row + 8 * half) * gate_stride + 2 * unit) =
                                    inside ? __floats2bfloat162_rn(t, s) : __floats2bfloat162_rn(0.f, 0.f);
                        }
                    }
                }
                sum[0] = warp_fold<Add, 4>(sum[0]) + bias, sum[1] = warp_fold<Add, 4>(sum[1]) + bias;
                if (tile >= 2) mbarrier_wait(&barriers.taken[tile % 2], (tile / 2 + 1) % 2);  // the scores before are not read any more
                if (lane % 4 == 0)
#pragma unroll
                    for (int half = 0; half < 2; ++half) {
                        const unsigned at = row + 8 * half;
                        tile_score[tile % 2][at] = sum[half];
                        if (first + at < end) scores[first + at] = sum[half];
                    }
                __syncwarp();  // the scores of this warp are there, before one lane says so
                if (lane == 0) mbarrier_arrive(&barriers.scored[tile % 2]);
            }
        }
        return;
    }
    release_registers<96>();
    if (warp == 0) {  // copies: x by all lanes, V and U in bulk by one
        Stage stage, landed;
        unsigned first_lap = STAGES, waiting = 0;
        for (unsigned segment = blockIdx.x; segment < segments; segment += gridDim.x)
            for (unsigned first = start[segment]; first < start[segment + 1]; first += ROWS)
                for (unsigned i = 0; i < chunks * steps; ++i) {
                    if (first_lap) --first_lap;
                    else mbarrier_wait(&barriers.empty[stage.at], stage.parity ^ 1);  // nobody multiplies the old one any more
                    __nv_bfloat16* to = memory + size_t(stage.at) * (TILE_A + TILE_B);
                    if (lane == 0) {
                        mbarrier_arrive_expect(&barriers.full[stage.at], TILE_B * 2);
                        bulk_load_bytes(to + TILE_A, inner + size_t(i) * TILE_B, TILE_B * 2, &barriers.full[stage.at]);
                    }
#pragma unroll 8
                    for (unsigned c = lane; c < ROWS * 8; c += 32) {
                        const unsigned row = c / 8;
                        const bool valid = first + row < start[segment + 1];
                        cp_async_16(to + swizzled_chunk(row, c % 8), valid ? x + size_t(first + row) * l + i % steps * STEP + c % 8 * 8 : x, valid);
                    }
                    cp_async_commit();
                    stage.next();
                    if (++waiting < 3) continue;
                    cp_async_wait<2>();
                    fence_proxy_async();  // what this thread copied is for wgmma
                    mbarrier_arrive(&barriers.full[landed.at]);
                    landed.next(), --waiting;
                }
        cp_async_wait<0>();
        fence_proxy_async();
        for (; waiting; --waiting, landed.next()) mbarrier_arrive(&barriers.full[landed.at]);
    } else {  // pools
        float* sums = reinterpret_cast<float*>(memory + size_t(STAGES) * (TILE_A + TILE_B));  // each thread has its own columns
        unsigned tile = 0;
        for (unsigned segment = blockIdx.x; segment < segments; segment += gridDim.x) {
            const unsigned end = start[segment + 1];
            float largest = -INFINITY, total = 0.f;
            for (unsigned first = start[segment]; first < end; first += ROWS, ++tile) {
                const unsigned rows = min(end - first, unsigned(ROWS));
                mbarrier_wait(&barriers.scored[tile % 2], tile / 2 % 2);
                float score[ROWS / 32], most = largest, sum = 0.f;
#pragma unroll
                for (int i = 0; i < ROWS / 32; ++i) {
                    score[i] = tile_score[tile % 2][lane + 32 * i];
                    if (lane + 32 * i < rows) most = fmaxf(most, score[i]);
                }
                __syncwarp();  // all lanes have their scores
                if (lane == 0) mbarrier_arrive(&barriers.taken[tile % 2]);
                most = warp_max(most);
#pragma unroll
                for (int i = 0; i < ROWS / 32; ++i) sum += weight[warp - 1][lane + 32 * i] = lane + 32 * i < rows ? expf(score[i] - most) : 0.f;
                const bool is_first = first == start[segment];
                const float scale = is_first ? 0.f : expf(largest - most);
                total = is_first ? warp_sum(sum) : fmaf(total, scale, warp_sum(sum));
                largest = most;
                __syncwarp();  // the weights of all rows are there
                for (unsigned column = (threadIdx.x % GROUP - 32) * 8; column < l; column += 96 * 8) {
                    float eight[8];
#pragma unroll
                    for (int i = 0; i < 8; ++i) eight[i] = is_first ? 0.f : sums[column + i] * scale;
#pragma unroll 8
                    for (unsigned row = 0; row < rows; ++row) {
                        const auto of = Vec<__nv_bfloat16>::load(x + size_t(first + row) * l + column);
                        const float a = weight[warp - 1][row];
#pragma unroll
                        for (int i = 0; i < 8; ++i) eight[i] = fmaf(a, of[i], eight[i]);
                    }
                    float4* to = reinterpret_cast<float4*>(first + ROWS < end ? sums + column : pooled + size_t(segment) * l + column);
                    to[0] = make_float4(eight[0], eight[1], eight[2], eight[3]), to[1] = make_float4(eight[4], eight[5], eight[6], eight[7]);
                }
                __syncwarp();  // weight[] is read no more, the next tile may write it
            }
            if (threadIdx.x % GROUP == 32) segment_max[segment] = largest, segment_sum[segment] = total;
        }
    }
}
