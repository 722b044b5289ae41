#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/merge_arguments.h"
#include "cli/render.h"
#include "mergepipe/base/text.h"
#include "mergepipe/base/units.h"
#include "mergepipe/run/demo.h"
#include "mergepipe/run/models.h"

namespace mergepipe {
namespace {

struct InitDbCommand {
  std::string catalog;

  Status Run(CommandContext& context) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const bool there, context.files->Exists(catalog));
    MERGEPIPE_ASSIGN_OR_RETURN(const auto opened, Catalog::OpenOrCreate(catalog));
    Print(fmt::format("[OK] {} catalog {}\n", there ? "opened the existing" : "made the", catalog));
    return {};
  }
};

struct RegisterCommand {
  std::string catalog;
  std::string path;
  std::string id;

  Status Run(CommandContext& context) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const ModelRecord model,
                               RegisterModel(*context.files, catalog, path, id));
    Print(fmt::format("[OK] registered {} | {} tensors in {} files, {} | fingerprint {}\n",
                      model.id, model.layout.tensors.size(), model.layout.files.size(),
                      FormatBytes(Bytes(model.layout.WeightBytes())), model.fingerprint.ToHex()));
    return {};
  }
};

struct ModelsCommand {
  std::string catalog;
  bool json = false;

  Status Run(CommandContext&) const {
    MERGEPIPE_ASSIGN_OR_RETURN(const auto opened, Catalog::Open(catalog));
    MERGEPIPE_ASSIGN_OR_RETURN(const auto ids, opened->ModelIds());
    nlohmann::json list = nlohmann::json::array();
    if (!json && ids.empty()) Print("no models are registered\n");
    for (const std::string& id : ids) {
      MERGEPIPE_ASSIGN_OR_RETURN(const auto model, opened->FindModel(id));
      if (!model) continue;  // removed since
      const ModelLayout& layout = model->layout;
      if (json) {
        list.push_back({{"id", id},
                        {"path", layout.path},
                        {"fingerprint", model->fingerprint.ToHex()},
                        {"tensors", layout.tensors.size()},
                        {"files", layout.files.size()},
                        {"bytes", layout.WeightBytes()},
                        {"registered_at", model->registered_at}});
      } else {
        Print(fmt::format("{:<32} {:>10} {:>6} tensors  {}\n", EscapeControl(id),
                          FormatBytes(Bytes(layout.WeightBytes())), layout.tensors.size(),
                          EscapeControl(layout.path)));
      }
    }
    if (json) Print(list.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    return {};
  }
};

struct DemoCommand {
  DemoOptions options;
  std::string dtype = "bf16";

  Status Run(CommandContext& context) const {
    DemoOptions demo = options;
    std::string name = dtype;
    for (char& c : name) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    const auto parsed = ParseDType(name);
    if (!parsed)
      return Fail(ErrorKind::kUsage, "--dtype", "there is no dtype '" + dtype + "'",
                  "use bf16, f16, f32 or f64");
    demo.dtype = *parsed;
    MERGEPIPE_ASSIGN_OR_RETURN(const DemoFamily family, MakeDemoFamily(*context.files, demo));
    Print(fmt::format("[OK] made {} and {} experts, {}\n", family.base, family.experts.size(),
                      FormatBytes(family.bytes_written)));
    for (const std::string& expert : family.experts) Print("     " + expert + "\n");
    return {};
  }
};

std::string SizesHelp() {
  std::string text = "shapes and sizes:";
  for (const DemoSize& size : DemoSizes()) text += fmt::format(" {}/{}", size.shape, size.name);
  return text;
}

}  // namespace

RunCommand AddInitDb(CLI::App& app) {
  const auto command = std::make_shared<InitDbCommand>();
  AddCatalogOption(app, command->catalog);
  return [command](CommandContext& context) { return command->Run(context); };
}

RunCommand AddRegister(CLI::App& app) {
  const auto command = std::make_shared<RegisterCommand>();
  app.add_option("path", command->path, "checkpoint directory, or one weight file")->required();
  app.add_option("--id", command->id, "name in the catalog [the directory's name]");
  AddCatalogOption(app, command->catalog);
  return [command](CommandContext& context) { return command->Run(context); };
}

RunCommand AddModels(CLI::App& app) {
  const auto command = std::make_shared<ModelsCommand>();
  app.add_flag("--json", command->json, "print as JSON");
  AddCatalogOption(app, command->catalog);
  return [command](CommandContext& context) { return command->Run(context); };
}

RunCommand AddDemo(CLI::App& app) {
  const auto command = std::make_shared<DemoCommand>();
  DemoOptions& options = command->options;
  app.add_option("dir", options.directory, "directory to make the family in")->required();
  app.add_option("--shape", options.shape, "architecture: llama, qwen3")->capture_default_str();
  app.add_option("--size", options.size, "size of each model")->capture_default_str();
  app.add_option("--experts", options.experts, "number of experts")
      ->capture_default_str()
      ->check(WholeNumber());
  app.add_option("--dtype", command->dtype, "bf16, f16, f32 or f64")->capture_default_str();
  app.add_option("--shards", options.shards, "weight files of each model")
      ->capture_default_str()
      ->check(WholeNumber());
  app.add_option("--seed", options.seed, "of the random weights")
      ->capture_default_str()
      ->check(WholeNumber());
  app.footer(SizesHelp());
  return [command](CommandContext& context) { return command->Run(context); };
}

}  // namespace mergepipe
