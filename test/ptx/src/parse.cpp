#include "parse.h"

#include <utility>

#include "body.h"
#include "declarations.h"
#include "lexer.h"

namespace ptx {
namespace {

class ModuleReader {
 public:
  explicit ModuleReader(std::string_view text) : reader_(text) {}

  Module read() {
    reader_.expect(".version");
    module_.version = reader_.expect(TokenKind::kNumber, "a version of PTX").text;
    reader_.expect(".target");
    module_.target = reader_.expect(TokenKind::kWord, "an architecture").text;
    while (reader_.accept(",")) reader_.expect(TokenKind::kWord, "an option of the target");
    while (!reader_.at(TokenKind::kEnd)) read_item();
    return std::move(module_);
  }

 private:
  void read_item() {
    if (reader_.accept(".address_size")) {
      if (!reader_.accept("64")) reader_.fail_here("64");
    } else if (reader_.accept(".file") || reader_.accept(".loc")) {
      reader_.skip_line();
    } else if (reader_.accept(".section")) {  // for debuggers
      reader_.next();
      reader_.skip_nested("{", "}");
    } else if (reader_.accept(".pragma") || reader_.accept(".alias")) {
      reader_.skip_through(";");
    } else {
      read_definition();
    }
  }

  void read_definition() {
    const bool is_extern = reader_.accept(".extern");
    if (!is_extern) {
      for (const char* linkage : {".visible", ".weak", ".common"}) reader_.accept(linkage);
    }
    if (reader_.accept(".entry")) {
      read_function(true);
    } else if (reader_.accept(".func")) {
      read_function(false);
    } else if (reader_.accept(".global")) {
      read_variables(Space::kGlobal, is_extern);
    } else if (reader_.accept(".const")) {
      read_variables(Space::kConst, is_extern);
    } else if (reader_.accept(".shared")) {
      read_variables(Space::kShared, is_extern);
    } else if (reader_.accept(".local")) {
      read_variables(Space::kLocal, is_extern);
    } else {
      reader_.fail_here("a function, a variable or another directive of a module");
    }
  }

  void read_variables(Space space, bool is_extern) {
    const VariablePrefix prefix = read_prefix(reader_, space);
    do {
      const Token token = reader_.peek();
      Variable variable = read_variable(reader_, prefix);
      variable.is_extern = is_extern;
      if (!names_.insert(variable.name).second) {
        fail_of(token, "a variable that isn't declared yet");
      }
      module_.variables.push_back(std::move(variable));
    } while (reader_.accept(","));
    reader_.expect(";");
  }

  void read_function(bool is_entry) {
    Function function;
    function.is_entry = is_entry;
    if (reader_.accept("(")) function.variables = read_parameters();  // its results
    function.name = reader_.expect(TokenKind::kWord, "the name of a function").text;
    names_.insert(function.name);
    if (reader_.accept("(")) function.parameters = read_parameters();
    while (reader_.at(TokenKind::kDotted)) read_attribute(function);
    if (reader_.accept(";")) return;  // declared only
    if (!reader_.at("{")) reader_.fail_here("`;` or `{` of a function");
    read_body(reader_, names_, function);
    module_.functions.push_back(std::move(function));
  }

  // After `(`.
  std::vector<Variable> read_parameters() {
    std::vector<Variable> parameters;
    while (!reader_.accept(")")) {
      if (!parameters.empty()) reader_.expect(",");
      reader_.expect(".param");
      parameters.push_back(read_variable(reader_, read_prefix(reader_, Space::kParam)));
    }
    return parameters;
  }

  void read_attribute(Function& function) {
    if (reader_.accept(".maxntid")) {
      function.max_threads = read_threads();
    } else if (reader_.accept(".reqntid")) {
      function.required_threads = read_threads();
    } else if (reader_.accept(".pragma")) {
      reader_.skip_through(";");
    } else if (reader_.accept(".attribute")) {
      reader_.skip_nested("(", ")");
    } else {  // .minnctapersm 1, .maxnreg 64, .reqnctapercluster 2, 1, 1, .noreturn
      reader_.next();
      if (reader_.at(TokenKind::kNumber)) read_threads();
    }
  }

  // x, y, z multiplied.
  int read_threads() {
    uint64_t product = 1;
    do {
      product *= reader_.expect_integer("a number of threads");
    } while (reader_.accept(","));
    return static_cast<int>(product);
  }

  Reader reader_;
  Module module_;
  Names names_;
};

}  // namespace

Module parse(std::string_view text) { return ModuleReader(text).read(); }

}  // namespace ptx
