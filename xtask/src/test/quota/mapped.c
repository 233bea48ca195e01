// Stores through a mapping over a hole, page after page, each followed by msync(2). Prints how many pages msync took
// and the errno of the first that it did not take (0: all were).
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    long pages = atol(argv[2]), taken = 0;
    size_t len = (size_t)pages * 4096;
    int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || ftruncate(fd, len) < 0) return perror("make the file"), 1;
    char *map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return perror("mmap"), 1;
    int why = 0;
    while (taken < pages && why == 0) {
        map[taken * 4096] = 1;
        if (msync(map + taken * 4096, 4096, MS_SYNC) < 0) why = errno;
        else taken++;
    }
    printf("%ld %d\n", taken, why);
    return 0;
}
