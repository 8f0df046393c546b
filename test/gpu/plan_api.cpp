// The plan and the shapes of csrc/cuda/gemm_plan.h for Python, by way of ctypes (plan.py has the
// same structures).

#include "../../csrc/cuda/gemm_plan.h"

namespace {

using namespace marlin::cuda;

struct PlanNumbers {
  int32_t rows, group_rows, scales_weights;
  int32_t blocks, threads, shared_bytes;
  int32_t tiles_k, tiles_n, tiles_m, tiles_of_block;
  int64_t partial_bytes, counter_count;
};

struct ShapeNumbers {
  int32_t warp_columns, row_warps, warps, slices;
  int32_t weight_bytes, activation_bytes, scale_bytes;
  int32_t stages, shared_bytes, scales_weights;
};

}  // namespace

extern "C" void marlin_plan_gemm(int64_t m, int64_t n, int64_t k, int64_t group_size, int bits,
                                 int has_zeros, int is_bfloat16, int architecture,
                                 int multiprocessors, PlanNumbers* out) {
  const Scalar scalar = is_bfloat16 != 0 ? Scalar::kBFloat16 : Scalar::kFloat16;
  const Launch plan = plan_gemm({m, n, k, group_size, bits, has_zeros != 0, scalar},
                                {architecture, multiprocessors});
  *out = {plan.variant.rows,
          plan.variant.group_rows,
          scales_weights(plan.variant) ? 1 : 0,
          plan.blocks,
          plan.threads,
          plan.shared_bytes,
          plan.tiles_k,
          plan.tiles_n,
          plan.tiles_m,
          plan.tiles_of_block,
          plan.partial_bytes,
          plan.counter_count};
}

extern "C" void marlin_tile_shape(int bits, int rows, int group_rows, int has_zeros,
                                  int is_bfloat16, ShapeNumbers* out) {
  const Scalar scalar = is_bfloat16 != 0 ? Scalar::kBFloat16 : Scalar::kFloat16;
  const Variant variant{scalar, bits, rows, group_rows, has_zeros != 0};
  const TileShape shape = shape_of(variant);
  *out = {shape.warp_columns,   shape.row_warps,
          shape.warps,          shape.slices,
          shape.weight_bytes,   shape.activation_bytes,
          shape.scale_bytes,    shape.stages,
          shape.shared_bytes(), scales_weights(variant) ? 1 : 0};
}
