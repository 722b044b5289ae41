// Several processes at one catalog, and processes that are killed.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "catalog/catalog_fixture.h"

namespace mergepipe {
namespace {

class CatalogProcessTest : public CatalogTest {};

/// Starts a process that runs `body` and exits with 0 if it returned true.
pid_t Start(const std::function<bool()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body() ? 0 : 1);
  return child;
}

bool EndedWell(pid_t child) {
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool CreateAndPut(const std::string& path, const std::string& id) {
  const auto catalog = Catalog::OpenOrCreate(path);
  return catalog && (*catalog)->PutModels({PlainModel(id, "x", 20)}).has_value();
}

TEST_F(CatalogProcessTest, ProcessesCreateAtOnce) {
  for (int round = 0; round < 20; ++round) {
    path_ = InDirectory(std::to_string(round));
    std::vector<pid_t> children;
    for (int i = 0; i < 4; ++i) {
      children.push_back(Start([&] { return CreateAndPut(path_, std::to_string(i)); }));
    }
    for (const pid_t child : children) EXPECT_TRUE(EndedWell(child));
    const auto catalog = Catalog::Open(path_).value();
    EXPECT_EQ(catalog->ModelIds().value(), (std::vector<std::string>{"0", "1", "2", "3"}));
    EXPECT_TRUE(Succeeded(catalog->CheckIntegrity()));
  }
  // Nothing but the catalogs is left.
  for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
    EXPECT_LE(entry.path().filename().string().size(), 2u) << entry.path();
  }
}

TEST_F(CatalogProcessTest, ThreadsCreateAtOnce) {
  std::vector<std::thread> threads;
  std::vector<int> done(4);
  for (size_t i = 0; i < done.size(); ++i) {
    threads.emplace_back([&, i] { done[i] = CreateAndPut(path_, std::to_string(i)) ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, std::vector<int>(4, 1));
  EXPECT_EQ(Catalog::Open(path_).value()->ModelIds().value().size(), 4u);
}

TEST_F(CatalogProcessTest, KilledWriterLeavesTheOldOrTheNewState) {
  // Large enough that the transaction takes a while; "pair" tells whether both models changed
  // together.
  const auto state = [](const std::string& tag) {
    return std::vector<ModelRecord>{PlainModel("m", tag, 3000), PlainModel("pair", tag, 1)};
  };
  const auto a = state("a");
  const auto b = state("b");
  ASSERT_TRUE(Succeeded(MakeCatalog()->PutModels(a)));
  std::mt19937 random(7);
  for (int round = 0; round < 25; ++round) {
    const pid_t child = Start([&] {
      const auto catalog = Catalog::Open(path_).value();
      for (;;) {
        if (!catalog->PutModels(b) || !catalog->PutModels(a)) return false;
      }
    });
    usleep(static_cast<useconds_t>(2000 + random() % 60000));
    kill(child, SIGKILL);
    EXPECT_FALSE(EndedWell(child));
    const auto catalog = MakeCatalog();
    ASSERT_TRUE(Succeeded(catalog->CheckIntegrity()));
    const auto m = catalog->FindModel("m").value();
    const auto pair = catalog->FindModel("pair").value();
    ASSERT_TRUE(m && pair);
    EXPECT_TRUE((SameLayout(m->layout, a[0].layout) && SameLayout(pair->layout, a[1].layout)) ||
                (SameLayout(m->layout, b[0].layout) && SameLayout(pair->layout, b[1].layout)));
  }
}

TEST_F(CatalogProcessTest, KilledCreatorLeavesNothingOrACatalog) {
  std::mt19937 random(8);
  for (int round = 0; round < 25; ++round) {
    path_ = InDirectory(std::to_string(round));
    const pid_t child = Start([&] { return CreateAndPut(path_, "m"); });
    usleep(static_cast<useconds_t>(random() % 15000));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    const auto catalog = Catalog::OpenIfExists(path_);
    ASSERT_TRUE(Succeeded(catalog));
    if (*catalog != nullptr) {
      EXPECT_TRUE(Succeeded((*catalog)->CheckIntegrity()));
    }
  }
}

}  // namespace
}  // namespace mergepipe
