#include <gtest/gtest.h>

#include <filesystem>

#include "mergepipe/io/file.h"

namespace mergepipe {
namespace {

TEST(Path, Join) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("/", "b"), "/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
}

TEST(Path, BaseName) {
  EXPECT_EQ(BaseName("a/b"), "b");
  EXPECT_EQ(BaseName("a/b//"), "b");
  EXPECT_EQ(BaseName("b"), "b");
  EXPECT_EQ(BaseName("/b"), "b");
  EXPECT_EQ(BaseName("/"), "/");
}

TEST(Path, Parent) {
  EXPECT_EQ(ParentPath("a/b/"), "a");
  EXPECT_EQ(ParentPath("a//b"), "a");
  EXPECT_EQ(ParentPath("b"), ".");
  EXPECT_EQ(ParentPath("/b"), "/");
  EXPECT_EQ(ParentPath("/"), "/");
  EXPECT_EQ(ParentPath("/a/b/c"), "/a/b");
}

TEST(Path, AbsoluteIsResolvedByNames) {
  EXPECT_EQ(AbsolutePath("/a/./b/../c"), "/a/c");
  EXPECT_EQ(AbsolutePath("/a/b/.."), "/a");
  EXPECT_EQ(AbsolutePath("/a//b/"), "/a/b");
  EXPECT_EQ(AbsolutePath("/.."), "/");
  EXPECT_EQ(AbsolutePath("/"), "/");
  const std::string here = std::filesystem::current_path().string();
  EXPECT_EQ(AbsolutePath("x"), JoinPath(here, "x"));
  EXPECT_EQ(AbsolutePath("./x/"), JoinPath(here, "x"));
  EXPECT_EQ(AbsolutePath("."), here);
}

}  // namespace
}  // namespace mergepipe
