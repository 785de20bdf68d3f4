// Counter-based random numbers on the device: the bits of src/rng.rs.
// Page: src/rng.rs.
// One thread, one call: counter and key live in registers, nothing is shared, so there are no barriers.
#pragma once

// No include: device.cuh's compilers take this header, and so does plain C++ (tests/kernels.rs holds it against the library).
#ifdef __CUDACC__
#define ONKOS_DEVICE __host__ __device__ __forceinline__
#else
#define ONKOS_DEVICE inline
#endif

namespace onkos {

using Word = unsigned int;             // 32 bits; NVRTC has no <stdint.h>
using LongWord = unsigned long long;  // 64 bits

struct Words {
    Word word[4];
};

// Philox4x32 with ten rounds (Salmon et al. 2011): four random words out of a counter and a key.
ONKOS_DEVICE Words philox4x32(Words counter, Word key0, Word key1) {
    for (int round = 0; round < 10; ++round) {
        const LongWord a = LongWord(0xD2511F53u) * counter.word[0];
        const LongWord b = LongWord(0xCD9E8D57u) * counter.word[2];
        counter = Words{{Word(b >> 32) ^ counter.word[1] ^ key0, Word(b),
                         Word(a >> 32) ^ counter.word[3] ^ key1, Word(a)}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return counter;
}

// The stream of one patient, as Draws::of makes it.
struct Stream {
    LongWord seed;
    Word patient, epoch, purpose;

    // The words 4 index .. 4 index + 4.
    ONKOS_DEVICE Words block(Word index) const {
        return philox4x32(Words{{index, patient, epoch, purpose}}, Word(seed), Word(seed >> 32));
    }

    // Word i.
    ONKOS_DEVICE Word word(LongWord i) const { return block(Word(i >> 2)).word[i & 3]; }

    // Uniform in [0, 1): the upper 24 bits, exact in f32.
    ONKOS_DEVICE float uniform(LongWord i) const { return float(word(i) >> 8) * (1.0f / 16777216.0f); }
};

}  // namespace onkos
