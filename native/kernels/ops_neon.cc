// Ops of one ISA: NEON.
#include "kernels/ops_vec_neon.h"
// The order matters: the vector type comes first.
#include "kernels/ops-inl.h"
#include "kernels/ops_attention-inl.h"

namespace corral {

const OpsKernels kOpsNeon = {
    .name = "neon",
    .rms_norm = rms_norm,
    .add = add_to,
    .scale = scale_by,
    .rope = rope,
    .gated = gated,
    .softcap = softcap,
    .store_kv = store_kv,
    .attend_chunk = attend_chunk,
    .merge = merge,
    .argmax = argmax,
    .exp_weights = exp_weights,
    .exp_sums = exp_sums,
    .select = select_at_least,
};

}  // namespace corral
