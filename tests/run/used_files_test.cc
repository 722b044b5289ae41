#include <gtest/gtest.h>

#include <optional>

#include "mergepipe/exec/scan.h"
#include "run/source_tables.h"

namespace mergepipe {
namespace {

std::vector<SourceFile> FilesOf(const std::string& model) {
  std::vector<SourceFile> files;
  for (int i = 0; i < 5; ++i) files.push_back({model + "/" + std::to_string(i), 100, i, 8});
  return files;
}

TensorPart Part(uint32_t base_file, std::optional<uint32_t> first, uint32_t second) {
  TensorPart part;
  part.base = {true, DType::kBF16, base_file, 8};
  part.experts = {{first.has_value(), DType::kBF16, first.value_or(0), 8},
                  {true, DType::kBF16, second, 8}};
  return part;
}

TEST(UsedFiles, LeavesTheFilesThatPartsRead) {
  const auto base = FilesOf("base");
  const std::vector<std::vector<SourceFile>> experts = {FilesOf("a"), FilesOf("b")};
  Slice slice;
  slice.parts = {Part(2, 3, 0), Part(4, std::nullopt, 0), Part(2, 3, 1)};
  const auto wanted = slice.parts;
  AddUsedFiles(base, experts, slice);
  ASSERT_EQ(slice.base_files.size(), 2u);
  ASSERT_EQ(slice.expert_files.size(), 2u);
  EXPECT_EQ(slice.expert_files[0].size(), 1u);
  EXPECT_EQ(slice.expert_files[1].size(), 2u);
  for (size_t i = 0; i < wanted.size(); ++i) {
    const TensorPart& part = slice.parts[i];
    EXPECT_EQ(slice.base_files[part.base.file].path, base[wanted[i].base.file].path);
    for (size_t k = 0; k < experts.size(); ++k) {
      ASSERT_EQ(part.experts[k].present, wanted[i].experts[k].present);
      if (!part.experts[k].present) continue;
      EXPECT_EQ(slice.expert_files[k][part.experts[k].file].path,
                experts[k][wanted[i].experts[k].file].path);
    }
  }
}

TEST(UsedFiles, GivesEveryExpertATable) {
  const auto base = FilesOf("base");
  const std::vector<std::vector<SourceFile>> experts = {FilesOf("a"), FilesOf("b")};
  ScanSlice idle;
  AddUsedFiles(base, experts, idle);
  EXPECT_TRUE(idle.base_files.empty());
  ASSERT_EQ(idle.expert_files.size(), 2u);
  EXPECT_TRUE(idle.expert_files[0].empty() && idle.expert_files[1].empty());
}

}  // namespace
}  // namespace mergepipe
