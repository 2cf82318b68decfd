#include <sched.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "base/cpu_features.h"

namespace corral {
namespace {

constexpr int kMaxCpus = 8192;

int affinity_cpus() {
  const auto free_set = [](cpu_set_t* set) { CPU_FREE(set); };
  const std::unique_ptr<cpu_set_t, decltype(free_set)> set(CPU_ALLOC(kMaxCpus), free_set);
  const size_t bytes = CPU_ALLOC_SIZE(kMaxCpus);
  if (set && sched_getaffinity(0, bytes, set.get()) == 0) return CPU_COUNT_S(bytes, set.get());
  return static_cast<int>(std::thread::hardware_concurrency());
}

// CPUs of a quota; 0 = none. Rounded down: spinning threads beyond the quota are stopped in the middle of a step.
int whole_cpus(double quota, double period) {
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(quota / period)) : 0;
}

int read_quota_v2(const std::string& directory) {
  std::ifstream file(directory + "/cpu.max");  // "max 100000" or "150000 100000"
  double quota = 0, period = 0;
  return file >> quota >> period ? whole_cpus(quota, period) : 0;
}

int read_quota_v1(const std::string& directory) {
  std::ifstream quota_file(directory + "/cpu.cfs_quota_us"), period_file(directory + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quota_file >> quota && period_file >> period ? whole_cpus(quota, period) : 0;
}

// The tightest quota from the group of this process up to the root of its hierarchy; 0 = none.
int tightest_quota(const std::string& root, std::string group, int (*read)(const std::string&)) {
  int tightest = 0;
  for (;;) {
    const int cpus = read(root + group);
    if (cpus > 0 && (tightest == 0 || cpus < tightest)) tightest = cpus;
    const size_t slash = group.rfind('/');
    if (group.empty() || slash == std::string::npos) return tightest;
    group.erase(slash);
  }
}

bool lists_cpu(const std::string& controllers) {
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');) {
    if (name == "cpu") return true;
  }
  return false;
}

// Lines of /proc/self/cgroup: "0::/group" (v2) or "4:cpu,cpuacct:/group" (v1).
int cgroup_cpus() {
  std::ifstream file("/proc/self/cgroup");
  int tightest = 0;
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    int cpus = 0;
    if (controllers.empty()) cpus = tightest_quota("/sys/fs/cgroup", group, read_quota_v2);
    if (lists_cpu(controllers)) cpus = tightest_quota("/sys/fs/cgroup/cpu", group, read_quota_v1);
    if (cpus > 0 && (tightest == 0 || cpus < tightest)) tightest = cpus;
  }
  return tightest;
}

}  // namespace

int usable_cpus() {
  const int cpus = std::max(1, affinity_cpus());
  const int quota = cgroup_cpus();
  return quota > 0 ? std::min(cpus, quota) : cpus;
}

}  // namespace corral
