#include "api.h"

#include <cstring>
#include <exception>
#include <map>
#include <string>

#include "json.h"
#include "machine.h"
#include "parse.h"

struct ptxsim {
  ptx::Module module;
  ptx::GlobalMemory memory;
  std::vector<ptx::GlobalSymbol> symbols;
  std::map<std::string, ptx::Program> programs;
  std::string text;  // the last one handed out
};

namespace {

thread_local std::string last_error;

// Runs `work`; what it throws becomes ptxsim_error, and the result `failure`.
template <typename Result, typename Work>
Result guarded(Result failure, const Work& work) {
  last_error.clear();
  try {
    return work();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "Something that is no exception was thrown.";
  }
  return failure;
}

void place_variables(ptxsim& simulator) {
  for (const ptx::Variable& variable : simulator.module.variables) {
    if (variable.space != ptx::Space::kGlobal && variable.space != ptx::Space::kConst) continue;
    ptx::Region& region = simulator.memory.add(variable.name, variable.size);
    simulator.symbols.push_back({variable.name, region.base});
    // Variables without a value of their own begin as zeros.
    std::vector<std::byte> bytes = variable.initial;
    bytes.resize(variable.size);
    region.write(0, bytes.data(), bytes.size());
    region.is_read_only = variable.space == ptx::Space::kConst;
  }
}

const ptx::Program& program_of(ptxsim& simulator, const std::string& entry) {
  const auto known = simulator.programs.find(entry);
  if (known != simulator.programs.end()) return known->second;
  for (const ptx::Function& function : simulator.module.functions) {
    if (function.name != entry || !function.is_entry) continue;
    return simulator.programs
        .emplace(entry, ptx::compile(simulator.module, function, simulator.symbols))
        .first->second;
  }
  throw std::invalid_argument("The module has no entry `" + entry + "`.");
}

ptx::Region* region_of(ptxsim& simulator, uint64_t address, uint64_t size) {
  ptx::Region* region = simulator.memory.find(address);
  return region != nullptr && region->contains(address, size) ? region : nullptr;
}

void write_result(ptx::Json& json, const ptx::Program& program, const ptx::Result& result,
                  ptx::GlobalMemory& memory) {
  json.begin_object();
  json.key("steps").number(result.steps);
  json.key("lane_steps").number(result.lane_steps);
  json.key("findings").begin_array();
  for (const ptx::Finding& finding : result.findings) {
    json.begin_object();
    json.key("kind").string(finding.kind);
    json.key("message").string(finding.message);
    json.key("line").number(static_cast<uint64_t>(finding.line));
    json.key("opcode").string(finding.opcode);
    json.key("block").number(finding.block);
    json.key("thread").number(finding.thread);
    json.key("count").number(finding.count);
    json.end_object();
  }
  json.end_array();
  json.key("instructions").begin_array();
  for (size_t i = 0; i < program.instructions.size(); ++i) {
    const ptx::Count& count = result.counts[i];
    if (count.warps == 0) continue;
    json.begin_object();
    json.key("line").number(static_cast<uint64_t>(program.instructions[i].line));
    json.key("opcode").string(program.opcodes[program.instructions[i].opcode]);
    json.key("warps").number(count.warps);
    json.key("lanes").number(count.lanes);
    if (count.wavefronts > 0) {
      json.key("wavefronts").number(count.wavefronts);
      json.key("ideal_wavefronts").number(count.ideal_wavefronts);
    }
    if (count.sectors > 0) json.key("sectors").number(count.sectors);
    if (count.bytes > 0) json.key("bytes").number(count.bytes);
    json.end_object();
  }
  json.end_array();
  json.key("buffers").begin_array();
  for (const auto& region : memory.regions()) {
    json.begin_object();
    json.key("name").string(region->name);
    json.key("address").number(region->base);
    json.key("size").number(region->size());
    json.key("read_bytes").number(region->read_bytes);
    json.key("written_bytes").number(region->written_bytes);
    json.key("read_sectors").number(region->read_sectors);
    json.key("written_sectors").number(region->written_sectors);
    json.end_object();
  }
  json.end_array();
  json.end_object();
}

void check_plan(const ptxsim_launch_plan& plan, const ptx::Program& program) {
  const ptx::Dim3 block = {plan.block[0], plan.block[1], plan.block[2]};
  const ptx::Dim3 grid = {plan.grid[0], plan.grid[1], plan.grid[2]};
  if (block.count() == 0 || block.count() > 1024 || grid.count() == 0) {
    throw std::invalid_argument("Expected 1 to 1024 threads in a block and a block in the grid.");
  }
  if (program.max_threads != 0 && block.count() > static_cast<uint32_t>(program.max_threads)) {
    throw std::invalid_argument("The entry allows " + std::to_string(program.max_threads) +
                                " threads in a block, got " + std::to_string(block.count()) + ".");
  }
  if (program.required_threads != 0 &&
      block.count() != static_cast<uint32_t>(program.required_threads)) {
    throw std::invalid_argument("The entry requires " + std::to_string(program.required_threads) +
                                " threads in a block, got " + std::to_string(block.count()) + ".");
  }
  if (plan.parameter_bytes != program.parameter_bytes) {
    throw std::invalid_argument("The entry has " + std::to_string(program.parameter_bytes) +
                                " bytes of parameters, got " +
                                std::to_string(plan.parameter_bytes) + ".");
  }
}

}  // namespace

ptxsim* ptxsim_open(const char* text) {
  return guarded<ptxsim*>(nullptr, [&] {
    auto simulator = std::make_unique<ptxsim>();
    simulator->module = ptx::parse(text);
    place_variables(*simulator);
    return simulator.release();
  });
}

void ptxsim_close(ptxsim* simulator) { delete simulator; }

const char* ptxsim_error(void) { return last_error.c_str(); }

const char* ptxsim_describe(ptxsim* simulator) {
  return guarded<const char*>(nullptr, [&] {
    ptx::Json json;
    json.begin_array();
    for (const ptx::Function& function : simulator->module.functions) {
      if (!function.is_entry) continue;
      const ptx::Program& program = program_of(*simulator, function.name);
      json.begin_object();
      json.key("name").string(program.name);
      json.key("static_shared_bytes").number(program.static_shared_bytes);
      json.key("local_bytes").number(program.local_bytes);
      json.key("parameter_bytes").number(program.parameter_bytes);
      json.key("parameters").begin_array();
      for (const ptx::ProgramParameter& parameter : program.parameters) {
        json.begin_object();
        json.key("name").string(parameter.name);
        json.key("offset").number(parameter.offset);
        json.key("size").number(parameter.size);
        json.end_object();
      }
      json.end_array();
      json.end_object();
    }
    json.end_array();
    simulator->text = json.text();
    return simulator->text.c_str();
  });
}

uint64_t ptxsim_add_buffer(ptxsim* simulator, const char* name, uint64_t size) {
  return guarded<uint64_t>(0, [&] { return simulator->memory.add(name, size).base; });
}

uint64_t ptxsim_symbol(ptxsim* simulator, const char* name) {
  for (const ptx::GlobalSymbol& symbol : simulator->symbols) {
    if (symbol.name == name) return symbol.address;
  }
  return 0;
}

int ptxsim_write(ptxsim* simulator, uint64_t address, const void* from, uint64_t size) {
  ptx::Region* region = region_of(*simulator, address, size);
  if (region == nullptr) return -1;
  region->write(address - region->base, static_cast<const std::byte*>(from), size);
  return 0;
}

int ptxsim_read(ptxsim* simulator, uint64_t address, void* to, uint64_t size) {
  const ptx::Region* region = region_of(*simulator, address, size);
  if (region == nullptr) return -1;
  std::memcpy(to, region->bytes.data() + (address - region->base), size);
  return 0;
}

int ptxsim_read_written(ptxsim* simulator, uint64_t address, void* to, uint64_t size) {
  const ptx::Region* region = region_of(*simulator, address, size);
  if (region == nullptr) return -1;
  std::memcpy(to, region->written.data() + (address - region->base), size);
  return 0;
}

int ptxsim_set_read_only(ptxsim* simulator, uint64_t address, int is_read_only) {
  ptx::Region* region = region_of(*simulator, address, 0);
  if (region == nullptr) return -1;
  region->is_read_only = is_read_only != 0;
  return 0;
}

const char* ptxsim_launch(ptxsim* simulator, const ptxsim_launch_plan* plan,
                          const ptxsim_options* options) {
  return guarded<const char*>(nullptr, [&] {
    const ptx::Program& program = program_of(*simulator, plan->entry);
    check_plan(*plan, program);
    simulator->memory.begin_grid();
    std::vector<std::byte> parameters(plan->parameter_bytes);
    if (!parameters.empty()) {
      std::memcpy(parameters.data(), plan->parameters, parameters.size());
    }
    ptx::Options how;
    how.seed = options->seed;
    how.generation = static_cast<ptx::Generation>(options->generation);
    how.copies_late = options->copies_late != 0;
    how.checks_races = options->checks_races != 0;
    how.reports_equal_writes = options->reports_equal_writes != 0;
    if (options->max_quantum == 0) {
      throw std::invalid_argument("`max_quantum`: expected at least 1, got 0.");
    }
    how.max_quantum = options->max_quantum;
    how.max_steps = options->max_steps;
    how.patience = options->patience;
    ptx::Grid grid(program, simulator->memory, {plan->grid[0], plan->grid[1], plan->grid[2]},
                   {plan->block[0], plan->block[1], plan->block[2]}, plan->dynamic_shared_bytes,
                   std::move(parameters), how);
    const ptx::Result result = grid.run();
    ptx::Json json;
    write_result(json, program, result, simulator->memory);
    simulator->text = json.text();
    return simulator->text.c_str();
  });
}
