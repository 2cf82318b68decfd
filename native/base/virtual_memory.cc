#include "base/virtual_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>
#include <utility>
#include <vector>

namespace corral {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

size_t page_bytes() {
  static const size_t bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

VirtualMemory::VirtualMemory(size_t bytes) {
  if (bytes == 0) return;
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  const size_t size = round_up(bytes, page_bytes());
  // A huge mapping is made one alignment too long, then cut at both ends.
  const size_t slack = size >= kHugePageBytes ? kHugePageBytes : 0;
  void* mapped =
      mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  uint8_t* begin = static_cast<uint8_t*>(mapped);
  if (slack != 0) {
    const size_t head =
        round_up(reinterpret_cast<uintptr_t>(begin), kHugePageBytes) - reinterpret_cast<uintptr_t>(begin);
    if (head != 0) munmap(begin, head);
    if (head != slack) munmap(begin + head + size, slack - head);
    begin += head;
  }
  data_ = begin;
  size_ = size;
}

VirtualMemory::~VirtualMemory() { unmap(); }

VirtualMemory::VirtualMemory(VirtualMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

VirtualMemory& VirtualMemory::operator=(VirtualMemory&& other) noexcept {
  if (this != &other) {
    unmap();
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void VirtualMemory::advise_huge_pages(bool wanted) const {
  if (size_ >= kHugePageBytes) madvise(data_, size_, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void VirtualMemory::release(size_t offset, size_t bytes) const {
  const size_t begin = round_up(offset, page_bytes());
  const size_t end = (offset + bytes) / page_bytes() * page_bytes();
  if (begin < end) madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

size_t VirtualMemory::resident_bytes() const {
  constexpr size_t kPagesPerCall = size_t{1} << 16;
  std::vector<unsigned char> resident(kPagesPerCall);
  size_t pages = 0;
  for (size_t offset = 0; offset < size_; offset += kPagesPerCall * page_bytes()) {
    const size_t left = size_ - offset;
    const size_t bytes = left < kPagesPerCall * page_bytes() ? left : kPagesPerCall * page_bytes();
    if (mincore(data_ + offset, bytes, resident.data()) != 0) continue;
    for (size_t page = 0; page < bytes / page_bytes(); ++page) pages += resident[page] & 1U;
  }
  return pages * page_bytes();
}

void VirtualMemory::unmap() {
  if (data_ != nullptr) munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace corral
