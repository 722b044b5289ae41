#include "exec/output_files.h"

#include <gtest/gtest.h>

#include "support/memory_file_system.h"

namespace mergepipe {
namespace {

// The number of a file may come from another rank.
TEST(OutputFiles, RefusesAFileThatIsNotThere) {
  MemoryFileSystem files;
  const std::vector<std::string> paths = {"/out"};
  ASSERT_TRUE(WriteNewFile(files, paths[0], "12345678"));
  const std::vector<SourceFile> base;
  const std::vector<std::vector<SourceFile>> experts;
  SourceFiles sources(files, base, experts, {});
  OutputFiles output(files, paths, sources, nullptr);
  const std::vector<std::byte> bytes(4);
  EXPECT_TRUE(output.Write({0, 4, bytes}));
  for (const uint32_t file : {1u, 2u, UINT32_MAX}) {
    const Status status = output.Write({file, 0, bytes});
    ASSERT_FALSE(status) << file;
    EXPECT_EQ(status.error().kind(), ErrorKind::kInternal);
  }
}

}  // namespace
}  // namespace mergepipe
