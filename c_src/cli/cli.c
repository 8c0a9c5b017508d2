#include "cli.h"

#include <stdlib.h>
#include <string.h>

static int usage(const struct cli *cli, FILE *out) {
    fprintf(out, "usage: %s %s\n\n", cli->tool, cli->form);
    for (size_t i = 0; i < cli->count; i++)
        fprintf(out, "  %-8s%s\n", cli->commands[i].name, cli->commands[i].what);
    fprintf(out, "\n%s", cli->tail);
    return out == stdout ? 0 : EXIT_USAGE;
}

static int run(const struct cli *cli, const struct cli_command *command, int argc, char **argv) {
    const char *wrong = cli->parse(argc, argv, cli->options);
    if (wrong != NULL && *wrong == 0) {
        fputs(command->help, stdout);
        return 0;
    }
    if (wrong != NULL) {
        fprintf(stderr, "%s %s: %s: see `%s %s --help`.\n", cli->tool, command->name, wrong,
                cli->tool, command->name);
        return EXIT_USAGE;
    }
    int status = command->run(cli->options);
    /* A pipe that was closed is no success of ours to tell. */
    return fflush(stdout) == 0 || status != 0 ? status : EXIT_FAILURE;
}

int cli_main(const struct cli *cli, int argc, char **argv) {
    if (argc < 2)
        return usage(cli, stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)
        return usage(cli, stdout);
    for (size_t i = 0; i < cli->count; i++)
        if (strcmp(argv[1], cli->commands[i].name) == 0)
            return run(cli, &cli->commands[i], argc - 1, argv + 1);
    fprintf(stderr, "%s: %s is no command.\n", cli->tool, argv[1]);
    return usage(cli, stderr);
}

void json_text(const char *text) {
    putchar('"');
    for (; *text != 0; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}
