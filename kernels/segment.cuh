// Bags cut into tiles of rows, and the threads of a block spread over the rows and columns of a tile: what ops that fold
// the columns of bags share. A tile is of one bag and begins at a multiple of its rows from the bag's first row, so a bag
// is cut alike in any batch. No barriers here.
#pragma once
#include "block.cuh"

constexpr unsigned TILE_ROWS = 128;  // rows

// Where the tiles of bag b begin: at least as many apart as the bag has tiles, so a block finds its own without a table.
__device__ __forceinline__ unsigned first_tile(const unsigned* __restrict__ offset, unsigned b) { return offset[b] / TILE_ROWS + b; }

// The bag of a tile and the rows of it; none where the places of a bag are more than its tiles.
struct Tile {
    unsigned bag, begin, end;
};
__device__ __forceinline__ Tile tile_of(const unsigned* __restrict__ offset, unsigned bags, unsigned tile) {
    unsigned low = 0, high = bags - 1;
    while (low < high) {
        const unsigned middle = low + (high - low + 1) / 2;
        if (first_tile(offset, middle) <= tile) low = middle;
        else high = middle - 1;
    }
    const unsigned last = offset[low + 1], before = (tile - first_tile(offset, low)) * TILE_ROWS;
    const unsigned begin = last - offset[low] < before ? last : offset[low] + before;
    return {low, begin, last - begin < TILE_ROWS ? last : begin + TILE_ROWS};
}

// Four columns and every `stride`th of the rows of this thread: `lanes` threads side by side, a power of two. 32 bits are
// enough for 65,535 blocks of 1024 columns, and in 64 the compiler splits 16-byte stores.
struct Place {
    unsigned row, stride, column;
};
__device__ __forceinline__ Place place(unsigned lanes) {
    return {threadIdx.x / lanes, blockDim.x / lanes, 4 * (blockIdx.y * lanes + threadIdx.x % lanes)};
}
