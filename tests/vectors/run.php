<?php

// Prints the names of the vectors that the README's PHP, verify.php beside this file, accepts.
require 'verify.php';

$vectors = json_decode(file_get_contents($argv[1]), true);
$accepted = [];
foreach ($vectors['cases'] as $vector) {
    $body = base64_decode($vector['body_base64']);
    try {
        $callback = verified_callback(
            $vector['authorization'], $body, $vectors['pems'], $vector['algorithm'], $vectors['operator_id'], $vector['now']
        );
        isset($callback['params']) && $accepted[] = $vector['name'];
    } catch (Throwable $fault) {
        fwrite(STDERR, "{$vector['name']}: {$fault->getMessage()}\n");
    }
}
echo json_encode($accepted);
