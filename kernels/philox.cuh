// Counter-based random numbers on the device: the bits of src/rng.rs.
// Page: src/rng.rs.
// One thread, one call: counter and key live in registers, nothing is shared, so there are no barriers.
#pragma once

#include <stdint.h>

#ifdef __CUDACC__
#define ONKOS_DEVICE __host__ __device__ __forceinline__
#else
#define ONKOS_DEVICE inline
#endif

namespace onkos {

struct Words {
    uint32_t word[4];
};

// Philox4x32 with ten rounds (Salmon et al. 2011): four random words out of a counter and a key.
ONKOS_DEVICE Words philox4x32(Words counter, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t(0xD2511F53u) * counter.word[0];
        const uint64_t b = uint64_t(0xCD9E8D57u) * counter.word[2];
        counter = Words{{uint32_t(b >> 32) ^ counter.word[1] ^ key0, uint32_t(b),
                         uint32_t(a >> 32) ^ counter.word[3] ^ key1, uint32_t(a)}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// The stream of one patient, as Draws::of makes it.
struct Stream {
    uint64_t seed;
    uint32_t patient, epoch, purpose;

    // The words 4 index .. 4 index + 4.
    ONKOS_DEVICE Words block(uint32_t index) const {
        return philox4x32(Words{{index, patient, epoch, purpose}}, uint32_t(seed), uint32_t(seed >> 32));
    }

    // Word i.
    ONKOS_DEVICE uint32_t word(uint64_t i) const { return block(uint32_t(i >> 2)).word[i & 3]; }

    // Uniform in [0, 1): the upper 24 bits, exact in f32.
    ONKOS_DEVICE float uniform(uint64_t i) const { return float(word(i) >> 8) * (1.0f / 16777216.0f); }
};

}  // namespace onkos
