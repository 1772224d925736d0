using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Text.Json;

/// <summary>Runs vectors.json against PredictuToken.cs beside this file; exit code 1 if a verdict is wrong.</summary>
public static class Run
{
    public static int Main(string[] arguments)
    {
        using (JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(arguments.Length > 0 ? arguments[0] : "../vectors.json")))
        {
            JsonElement vectors = document.RootElement;
            Dictionary<string, byte[]> keys = vectors.GetProperty("pems").EnumerateObject()
                .ToDictionary(pem => pem.Name, pem => PredictuToken.PublicKey(pem.Value.GetString()));
            var wrong = new List<string>();
            foreach (JsonElement vector in vectors.GetProperty("cases").EnumerateArray())
            {
                string why = "";
                try
                {
                    PredictuToken.VerifiedCallback(
                        vector.GetProperty("authorization").GetString(),
                        vector.GetProperty("body_base64").GetBytesFromBase64(),
                        keys,
                        vector.GetProperty("algorithm").GetString(),
                        vectors.GetProperty("operator_id").GetString(),
                        vector.GetProperty("now").GetInt64()).GetProperty("params");
                }
                catch (Exception fault)
                {
                    why = fault.Message == "" ? fault.GetType().Name : fault.Message;
                }
                if (vector.GetProperty("accept").GetBoolean() != (why == ""))
                {
                    wrong.Add(vector.GetProperty("name").GetString() + (why == "" ? ": accepted" : ": refused: " + why));
                }
            }
            int count = vectors.GetProperty("cases").GetArrayLength();
            wrong.ForEach(Console.Error.WriteLine);
            Console.WriteLine($"{count - wrong.Count} of {count} cases as expected");
            return wrong.Count == 0 ? 0 : 1;
        }
    }
}
