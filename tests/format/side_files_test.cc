#include "mergepipe/format/side_files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>

#include "format/model_files.h"

namespace mergepipe {
namespace {

class SideFilesTest : public ::testing::Test {
 protected:
  void List() {
    const auto files = ListSideFiles(PosixFileSystem(), directory_.path());
    ASSERT_TRUE(files) << files.error().ToString();
    copied_.clear();
    left_out_.clear();
    for (const SideFile& file : files->copied) copied_.push_back(file.path);
    for (const LeftOutFile& file : files->left_out) left_out_[file.path] = file.reason;
  }

  TempDirectory directory_;
  std::vector<std::string> copied_;
  std::map<std::string, std::string> left_out_;
};

TEST_F(SideFilesTest, CopiesWhatBelongsToAModel) {
  const std::vector<std::string> names = {
      "LICENSE",         "README.md",         "chat_template.jinja", "config.json",
      "dir.bin/a.txt",   "faiss.index.json",  "merges.txt",          "modeling_x.py",
      "sub/deep/x.json", "sub/manifest.json", "tokenizer.json",      "tokenizer.model"};
  for (const std::string& name : names) directory_.Write(name, "x");
  List();
  EXPECT_EQ(copied_, names);
  EXPECT_TRUE(left_out_.empty());
}

TEST_F(SideFilesTest, GivesSizes) {
  directory_.Write("a.txt", "12345");
  const auto files = ListSideFiles(PosixFileSystem(), directory_.path());
  ASSERT_TRUE(files);
  EXPECT_EQ(files->copied, (std::vector<SideFile>{{"a.txt", 5}}));
}

TEST_F(SideFilesTest, LeavesOutWeightsOfAnyKind) {
  for (const char* extension :
       {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack",
        ".onnx", ".onnx_data", ".npz", ".tflite", ".mlmodel", ".ot", ".pkl", ".GGUF"}) {
    directory_.Write(std::string("a/w") + extension, "x");
  }
  List();
  EXPECT_TRUE(copied_.empty());
  EXPECT_EQ(left_out_.size(), 17u);
  EXPECT_EQ(left_out_["a/w.bin"], "weights");
}

TEST_F(SideFilesTest, LeavesOutIndexesRecordsAndHiddenNames) {
  for (const char* name :
       {"model.safetensors.index.json", "model.safetensors.index.fp16.json",
        "pytorch_model.bin.index.json", "manifest.json", ".gitattributes", ".git/config"}) {
    directory_.Write(name, "x");
  }
  List();
  EXPECT_TRUE(copied_.empty());
  EXPECT_EQ(left_out_["model.safetensors.index.json"], "an index of weights");
  EXPECT_EQ(left_out_["model.safetensors.index.fp16.json"], "an index of weights");
  EXPECT_EQ(left_out_["pytorch_model.bin.index.json"], "an index of weights");
  EXPECT_EQ(left_out_["manifest.json"], "the record of a former merge");
  EXPECT_EQ(left_out_[".gitattributes"], "hidden");
  EXPECT_EQ(left_out_[".git"], "hidden");
}

TEST_F(SideFilesTest, LeavesOutHugeFiles) {
  std::filesystem::resize_file(directory_.Write("just.json", ""), kMaxSideFileBytes);
  std::filesystem::resize_file(directory_.Write("over.json", ""), kMaxSideFileBytes + 1);
  List();
  EXPECT_EQ(copied_, std::vector<std::string>{"just.json"});
  EXPECT_EQ(left_out_["over.json"], "larger than 256.0 MiB");
}

TEST_F(SideFilesTest, FollowsLinksToFilesOnly) {
  directory_.Write("sub/a.txt", "x");
  std::filesystem::create_symlink("sub/a.txt", directory_.Path("link.txt"));
  std::filesystem::create_directory_symlink("sub", directory_.Path("loop"));
  std::filesystem::create_directory_symlink("..", directory_.Path("sub/up"));
  std::filesystem::create_symlink("nothing", directory_.Path("dangling.txt"));
  ASSERT_EQ(mkfifo(directory_.Path("pipe").c_str(), 0600), 0);
  List();
  EXPECT_EQ(copied_, (std::vector<std::string>{"link.txt", "sub/a.txt"}));
  EXPECT_EQ(left_out_.size(), 4u);
  EXPECT_EQ(left_out_["loop"], "a link to a directory");
  EXPECT_EQ(left_out_["dangling.txt"], "a link to nothing, or to no regular file");
  EXPECT_EQ(left_out_["pipe"], "not a regular file");
}

}  // namespace
}  // namespace mergepipe
