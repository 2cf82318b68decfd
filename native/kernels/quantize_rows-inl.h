// Rows of activations in both quantised forms. Included inside an anonymous namespace after an ISA's quantize_group(x,
// count, q), which returns the scale, and sum_of_16(q).

void quantize_row32(const float* x, const Activations& act, int64_t row) {
  for (int64_t k = 0, tile = row; k < act.k; k += kTileK, tile += act.m) {
    int8_t* q = act.q + tile * kTileK;
    ActGroups32& groups = act.groups32[tile];
    for (int c = 0; c < 8; ++c, q += kChunkK) {
      groups.scale[c] = 0.0f;
      if (k + c * kChunkK < act.k) {
        groups.scale[c] = quantize_group(x + k + c * kChunkK, kChunkK, q);
      } else {
        __builtin_memset(q, 0, kChunkK);
      }
      const int sum = sum_of_16(q) + sum_of_16(q + 16);
      groups.sum[c] = static_cast<float>(sum);
      groups.neg_sum[c] = -sum;
    }
  }
}

void quantize_row256(const float* x, const Activations& act, int64_t row) {
  for (int64_t k = 0, tile = row; k < act.k; k += kTileK, tile += act.m) {
    int8_t* q = act.q + tile * kTileK;
    ActGroups256& groups = act.groups256[tile];
    groups.scale = quantize_group(x + k, kTileK, q);
    for (int s = 0; s < 16; ++s) {
      const int sum = sum_of_16(q + 16 * s);
      groups.neg_sum[s] = -sum;
      groups.sum16[s] = static_cast<int16_t>(sum);
    }
    for (int s = 0; s < 8; ++s) groups.sum32[s] = static_cast<int16_t>(groups.sum16[2 * s] + groups.sum16[2 * s + 1]);
    __builtin_memset(groups.padding, 0, sizeof groups.padding);
  }
}
