import { defineConfig } from "@hey-api/openapi-ts";

// The calls and their types are made from the service's own description in every build, so they are
// not committed; a test holds openapi.json equal to what the service serves.
export default defineConfig({
  input: "openapi.json",
  output: { path: "src/generated", clean: true },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/schemas", { name: "@hey-api/sdk" }],
});
