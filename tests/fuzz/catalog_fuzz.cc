#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>

#include "mergepipe/catalog/catalog.h"
#include "mergepipe/catalog/salvage.h"

namespace {

using namespace mergepipe;

constexpr size_t kOneSalvageIn = 256;

// A file in memory, where there is one, in a directory of this process.
class Scratch {
 public:
  Scratch() {
    std::error_code error;
    const bool in_memory = std::filesystem::is_directory("/dev/shm", error);
    std::string name =
        (in_memory ? std::string("/dev/shm") : std::filesystem::temp_directory_path().string()) +
        "/catalog_fuzz.XXXXXX";
    if (mkdtemp(name.data()) == nullptr) std::abort();
    directory_ = name;
  }
  ~Scratch() { std::filesystem::remove_all(directory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string File() const { return directory_ + "/db.sqlite"; }

 private:
  std::string directory_;
};

ModelRecord MakeModel(const std::string& id) {
  ModelRecord model;
  model.id = id;
  model.layout.path = model.layout.directory = "/models/" + id;
  model.layout.files.push_back({"model.safetensors", {}, 128, {1, 2}, {{"format", "pt"}}});
  model.layout.files[0].info.size = 4096;
  model.layout.tensors = {{"w", DType::kF32, {3, 5}, 0, 128}, {"s", DType::kBF16, {}, 0, 188}};
  model.registered_at = "2026-01-01T00:00:00Z";
  return model;
}

// The bytes of a catalog with a row of each kind.
std::string MakeCatalog(const std::string& path) {
  {
    const auto catalog = Catalog::OpenOrCreate(path);
    const ModelRecord base = MakeModel("base");
    const ModelRecord code = MakeModel("code");
    StatisticsBatch batch;
    batch.sets = {{{"base", "code", 8, 0}, {{0, std::vector<BlockStatistics>(2)}}}};
    batch.base = "base";
    batch.block_size = 8;
    batch.base_tensors = {{0, std::vector<BaseBlockStatistics>(2)}};
    batch.models = {&base, &code};
    const bool made = catalog && (*catalog)->PutModels({base, code}) &&
                      (*catalog)->PutPlan("p", "hash", "{}") &&
                      (*catalog)->PutRun({"r", "p", "hash", "m", "/out", "/runs/r", "h", "t"}) &&
                      (*catalog)->PutStatistics(batch);
    if (!made) std::abort();
  }
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The whole catalog with changes: three bytes for where, and one byte to put there; where the third
// is the largest, the file is cut there instead, as far as half of it.
std::string Change(std::string bytes, const uint8_t* data, size_t size) {
  const size_t whole = bytes.size();
  for (; size >= 4; data += 4, size -= 4) {
    const size_t at = (data[0] + 256u * data[1] + 65536u * data[2]) % whole;
    if (data[2] == UINT8_MAX) {
      bytes.resize(std::min(bytes.size(), std::max(at, whole / 2)));
    } else if (at < bytes.size()) {
      bytes[at] = static_cast<char>(data[3]);
    }
  }
  return bytes;
}

// Whether it is whole.
bool ReadEverything(Catalog& catalog) {
  const bool whole = catalog.CheckIntegrity().has_value();
  const auto ids = catalog.ModelIds();
  const auto runs = catalog.RunIds();
  if (whole && (!ids || !runs)) std::abort();
  for (const std::string& id : ids.value_or(std::vector<std::string>())) {
    const auto model = catalog.FindModel(id);
    if (whole && (!model || !*model)) std::abort();
    static_cast<void>(catalog.FindModelByPath("/models/" + id));
  }
  for (const std::string& id : runs.value_or(std::vector<std::string>())) {
    if (whole && !catalog.FindRun(id)) std::abort();
  }
  static_cast<void>(catalog.FindRunByOutput("/out"));
  static_cast<void>(catalog.FindPlan("p"));
  const StatisticsId id{"base", "code", 8, 0};
  for (const uint32_t tensor : catalog.StatisticsTensors(id).value_or(std::vector<uint32_t>()))
    static_cast<void>(catalog.ReadStatistics(id, tensor));
  static_cast<void>(catalog.ReadBaseStatistics("base", 8, 0));
  return whole;
}

}  // namespace

// Any file is read as a catalog or refused; one that is whole gives all its records. What is left
// of a damaged one is found.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Scratch kScratch;
  static const std::string kPath = kScratch.File();
  static const std::string kCatalog = MakeCatalog(kPath);
  std::ofstream(kPath, std::ios::binary | std::ios::trunc) << Change(kCatalog, data, size);
  const auto catalog = Catalog::Open(kPath);
  const bool whole = catalog && ReadEverything(**catalog);
  // Only of some: it looks for thousands of keys where there may be rows. By a hash, as what
  // changes an input must not always keep it slow.
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (!whole && std::hash<std::string_view>()(input) % kOneSalvageIn == 0) {
    const auto damaged = DamagedCatalog::Open(kPath, DamagedCatalog::Purpose::kLook);
    if (damaged && !(*damaged)->CopyTo(nullptr)) std::abort();
  }
  std::filesystem::remove(kPath + "-journal");
  return 0;
}
