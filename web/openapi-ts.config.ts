import { defineConfig } from "@hey-api/openapi-ts";

// Every build generates the calls and their types from the service's API description, so they are
// not committed. A test keeps openapi.json equal to the description that the service serves.
export default defineConfig({
  input: "openapi.json",
  output: { path: "src/generated", clean: true },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/schemas", { name: "@hey-api/sdk" }],
});
