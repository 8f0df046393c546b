#include "special_registers.h"

#include <unordered_set>

namespace ptx {
namespace {

// Families with a number behind: %envreg0 to %envreg31.
constexpr std::string_view kNumbered[] = {"%envreg", "%pm", "%reserved_smem_offset_"};

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

bool is_special_register(std::string_view name) {
  static const std::unordered_set<std::string_view> names = {
      "%tid",
      "%ntid",
      "%laneid",
      "%warpid",
      "%nwarpid",
      "%ctaid",
      "%nctaid",
      "%smid",
      "%nsmid",
      "%gridid",
      "%is_explicit_cluster",
      "%clusterid",
      "%nclusterid",
      "%cluster_ctaid",
      "%cluster_nctaid",
      "%cluster_ctarank",
      "%cluster_nctarank",
      "%lanemask_eq",
      "%lanemask_le",
      "%lanemask_lt",
      "%lanemask_ge",
      "%lanemask_gt",
      "%clock",
      "%clock_hi",
      "%clock64",
      "%globaltimer",
      "%globaltimer_lo",
      "%globaltimer_hi",
      "%reserved_smem_offset_begin",
      "%reserved_smem_offset_end",
      "%reserved_smem_offset_cap",
      "%total_smem_size",
      "%aggr_smem_size",
      "%dynamic_smem_size",
      "%current_graph_exec",
  };
  if (names.contains(name)) return true;
  for (const std::string_view family : kNumbered) {
    if (name.starts_with(family) && is_number(name.substr(family.size()))) return true;
  }
  return false;
}

}  // namespace ptx
