// Ops of one ISA: AVX-512.
#include "kernels/ops_vec_avx512.h"
// The order matters: the vector type comes first.
#include "kernels/ops-inl.h"
#include "kernels/ops_kv-inl.h"
// Then attention, over the pages.
#include "kernels/ops_attention-inl.h"
// Last the adapters, which take its loops over rows.
#include "kernels/ops_low_rank-inl.h"

namespace corral {

const OpsKernels kOpsAvx512 = {
    .name = "avx512",
    .rms_norm = rms_norm,
    .add = add_to,
    .scale = scale_by,
    .rope = rope,
    .gated = gated,
    .softcap = softcap,
    .kv = {{store_kv_half, attend_chunk<HalfCells>}, {store_kv_int8, attend_chunk<ByteCells>}},
    .merge = merge,
    .low_rank_down = low_rank_down,
    .low_rank_up = low_rank_up,
    .argmax = argmax,
    .exp_weights = exp_weights,
    .exp_sums = exp_sums,
    .select = select_at_least,
};

}  // namespace corral
