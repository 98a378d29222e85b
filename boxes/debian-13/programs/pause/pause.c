/* Holds a pod's namespaces and, as its process 1, collects orphans. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void down(int sign) {
  (void)sign;
  _exit(0);
}

static void reap(int sign) {
  (void)sign;
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
}

int main(int argc, char **argv) {
  /* kubeadm upgrade asks the cluster to run this, and for its end, before it begins (CreateJob). */
  if (argc > 1 && strcmp(argv[1], "-v") == 0) return 0;
  signal(SIGINT, down);
  signal(SIGTERM, down);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
