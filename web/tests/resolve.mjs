// Lets Node resolve the sources without their extension, as the bundler does.

import { registerHooks } from "node:module";

globalThis.document = { baseURI: "http://127.0.0.1/" };
globalThis.sessionStorage = { getItem: () => null };

const ENDINGS = ["", ".ts", ".tsx", "/index.ts"];

registerHooks({
  resolve(specifier, context, next) {
    if (!specifier.startsWith(".")) return next(specifier, context);
    for (const ending of ENDINGS) {
      try {
        return next(specifier + ending, context);
      } catch (error) {
        if (!["ERR_MODULE_NOT_FOUND", "ERR_UNSUPPORTED_DIR_IMPORT"].includes(error.code)) throw error;
      }
    }
    return next(specifier, context);
  },
});
