// PyTorch's large buffers on the CPU, in one region of memory that keeps its pages.
//
// glibc's malloc cannot place an aligned buffer in a hole that another one of the same size has left, because it looks
// for the size plus the alignment. Here a buffer is whole pages and goes into the lowest hole that it fits, so the
// buffers of a training step hardly take more memory than those that live at once. No page is returned to the system,
// since the next step would fault it in again. Smaller buffers, and those for which there is no room, are malloc's.

#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <utility>

namespace {

constexpr size_t LARGE = 1 << 20;   // bytes from which on a buffer is placed here
constexpr size_t GROWTH = 1 << 21;  // bytes by which the usable part of the region grows

class Region {
public:
    // Addresses for as much as the machine has; only what is used becomes memory.
    bool reserve() {
        page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        size = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * page / GROWTH * GROWTH;
        void *found = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (found == MAP_FAILED) return false;
        base = static_cast<char *>(found);
        holes[base] = size;
        return true;
    }

    bool has(const void *pointer) const {
        return reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(base) < size;
    }

    // Null where no hole is large enough or the system gives no more memory.
    void *take(size_t bytes) {
        if (bytes > size) return nullptr;
        bytes = (bytes + page - 1) / page * page;
        const std::lock_guard<std::mutex> guard(mutex);
        auto hole = holes.begin();
        while (hole != holes.end() && hole->second < bytes) ++hole;
        if (hole == holes.end()) return nullptr;
        const auto [start, length] = *hole;
        if (!make_usable(static_cast<size_t>(start - base) + bytes)) return nullptr;
        taken[start] = bytes;
        if (length > bytes) holes[start + bytes] = length - bytes;
        holes.erase(hole);
        return start;
    }

    void give_back(void *pointer) {
        const std::lock_guard<std::mutex> guard(mutex);
        auto hole = taken.extract(static_cast<char *>(pointer));
        const auto after = holes.find(hole.key() + hole.mapped());
        if (after != holes.end()) {
            hole.mapped() += after->second;
            holes.erase(after);
        }
        const auto next = holes.lower_bound(hole.key());
        if (next != holes.begin()) {
            const auto before = std::prev(next);
            if (before->first + before->second == hole.key()) {
                before->second += hole.mapped();
                return;
            }
        }
        holes.insert(std::move(hole));
    }

private:
    bool make_usable(size_t end) {
        if (end <= usable) return true;
        const size_t wanted = (end + GROWTH - 1) / GROWTH * GROWTH;
        if (mprotect(base + usable, wanted - usable, PROT_READ | PROT_WRITE) != 0) return false;
        usable = wanted;
        return true;
    }

    std::mutex mutex;
    char *base = nullptr;
    size_t page = 0, size = 0, usable = 0;
    std::map<char *, size_t> holes, taken;  // bytes by address
};

Region *region = nullptr;  // never destroyed: tensors may outlive every static object

void release(void *pointer) {
    if (!region->has(pointer)) return c10::GetDefaultCPUAllocator()->raw_deallocate(pointer);
    c10::profiledCPUMemoryReporter().Delete(pointer);
    region->give_back(pointer);
}

class Buffers final : public c10::Allocator {
public:
    c10::DataPtr allocate(size_t bytes) override {
        void *pointer = bytes < LARGE ? nullptr : region->take(bytes);
        if (pointer == nullptr) {
            pointer = c10::GetDefaultCPUAllocator()->raw_allocate(bytes);
        } else {
            c10::profiledCPUMemoryReporter().New(pointer, bytes);
        }
        return {pointer, pointer, &release, c10::Device(c10::DeviceType::CPU)};
    }

    c10::DeleterFnPtr raw_deleter() const override { return &release; }

    void copy_data(void *to, const void *from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

}  // namespace

// From now on, PyTorch allocates on the CPU through `Buffers`; without room for the region, as before.
extern "C" void keep_buffers() {
    if (region != nullptr) return;
    auto *made = new (std::nothrow) Region;
    if (made == nullptr || !made->reserve()) return;
    region = made;
    c10::SetCPUAllocator(new Buffers);
}
