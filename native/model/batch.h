#pragma once

#include <cstdint>

namespace corral {

class Adapter;

// One step's work: a view of the caller's arrays, checked by the caller.
struct Batch {
  int64_t num_tokens = 0;
  int64_t num_seqs = 0;
  int64_t num_logit_rows = 0;
  int64_t table_stride = 0;                  // blocks in a row of block_tables
  const int32_t* token_ids = nullptr;        // [num_tokens]
  const int32_t* seq_offsets = nullptr;      // [num_seqs + 1] sequence s has rows [seq_offsets[s], seq_offsets[s + 1])
  const int32_t* start_positions = nullptr;  // [num_seqs] position of the sequence's first row
  const int32_t* block_tables = nullptr;     // [num_seqs][table_stride] block of each 16 positions
  const int32_t* logit_rows = nullptr;       // [num_logit_rows] rows whose logits are wanted
  const int32_t* adapter_ids = nullptr;      // [num_seqs] index into adapters, -1: none; null: nobody has one
  const Adapter* const* adapters = nullptr;

  const Adapter* adapter_of(int64_t seq) const { return adapter_ids[seq] < 0 ? nullptr : adapters[adapter_ids[seq]]; }
  const int32_t* block_table(int64_t seq) const { return block_tables + seq * table_stride; }
};

}  // namespace corral
